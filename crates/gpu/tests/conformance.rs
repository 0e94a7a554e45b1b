//! Every operation against the CPU's scalar level, with the cases that all backends run; on whatever card there is, if only
//! Mesa's software Vulkan.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use phi3v_gpu::testing::card;
use phi3v_gpu::{Choice, Gpu, GpuOptions};
use phi3v_kernels::quant::{PackedShape, encode_panel};
use phi3v_kernels::testing::conformance::{Subject, attention, dense, packed, rows};
use phi3v_kernels::testing::{Noise, Variant};
use phi3v_kernels::{Backend, BackendError, Bytes, Cpu, Epilogue, Format, MatrixSource, Precision};

fn scalar() -> Subject<Cpu> {
    Subject { name: "scalar".to_owned(), backend: Variant::SCALAR.cpu(2).unwrap() }
}

/// The card that tests run on, if there is one.
fn subjects() -> Vec<Subject<Gpu>> {
    let subject = |backend: Gpu| Subject { name: backend.adapter().name.clone(), backend };
    card().map(subject).into_iter().collect()
}

#[test]
fn operations_on_rows() {
    let subjects = subjects();
    rows::norms(&subjects);
    rows::sums_and_rotations(&subjects);
    rows::lookups(&subjects);
    rows::shapes(&subjects);
}

#[test]
fn packed_products() {
    let subjects = subjects();
    packed::sums(&subjects);
    packed::epilogues(&subjects);
    packed::broken_activations(&subjects);
    subjects.iter().for_each(packed::sizes);
}

#[test]
fn packed_products_in_blocks() {
    packed::normed_products(&subjects());
    packed::feed_forward(&subjects());
}

#[test]
fn packed_products_in_any_company() {
    packed::bits(&subjects());
}

#[test]
fn dense_products() {
    let subjects = subjects();
    subjects.iter().for_each(dense::is_the_formula);
    if let [subject] = &subjects[..] {
        dense::rows_know_no_company(subject, subject);
    }
    dense::agrees(&scalar().backend, &subjects);
}

#[test]
fn causal_attention() {
    let subjects = subjects();
    subjects.iter().for_each(attention::causal_is_the_formula);
    attention::large_scores(&subjects);
    attention::causal_agrees(&scalar().backend, &subjects);
}

#[test]
fn a_block_of_keys_and_values_forgets_whose_it_was() {
    attention::blocks_are_left_clean(&subjects());
}

#[test]
fn a_prompt_may_be_cut_into_chunks() {
    attention::prompts_may_be_cut(&subjects());
}

#[test]
fn full_attention() {
    attention::full_agrees(&scalar().backend, &subjects());
}

/// A card that sees 4 MiB at a time gives the bits of one that sees the whole matrix, gates and ups apart or together.
#[test]
fn matrices_larger_than_a_binding_are_cut() {
    const K: usize = 4096;
    let Some(whole) = subjects().pop() else { return };
    let choice = Choice::Name(whole.name.clone());
    let options = GpuOptions { choice, binding_bytes_max: Some(4 << 20), ..GpuOptions::default() };
    let cut = Gpu::new(&options).unwrap();
    let mut noise = Noise::new(12);
    for n in [1100, 1280] {
        let shape = PackedShape::new(Format::Q8, n, K).unwrap();
        assert!(shape.bytes() > 4 << 20);
        let rows = noise.normal(n * K);
        let mut bytes = vec![0; shape.bytes()];
        for (panel, bytes) in bytes.chunks_exact_mut(shape.panel_bytes()).enumerate() {
            let range = shape.panel_rows(panel);
            encode_panel(shape, panel, &rows[range.start * K..range.end * K], bytes);
        }
        let bytes = Bytes::from(bytes);
        let bias = Some(noise.normal(n));
        let source = MatrixSource { bytes, format: Format::Q8, precision: Precision::F32, n, k: K, bias };
        for (rows, epilogue) in [(1, Epilogue::Add), (2, Epilogue::SiluMul), (20, Epilogue::SiluMul)] {
            let x = noise.normal(rows * K);
            let product = |gpu: &Gpu| {
                let weight = gpu.linear_weight(source.clone()).unwrap();
                let mut input = gpu.tensor(rows, K).unwrap();
                gpu.upload(&x, 0, &mut input);
                let mut out = gpu.tensor(rows, epilogue.out_cols(n)).unwrap();
                gpu.linear(&input, &weight, epilogue, &mut out);
                let mut values = Vec::new();
                gpu.download(&out, 0..rows, &mut values).unwrap();
                values
            };
            assert_eq!(product(&cut), product(&whole.backend), "{n} columns, {rows} rows, {epilogue:?}");
        }
    }
}

/// What cannot be had is an error and no end of the program, and the card goes on.
#[test]
fn a_full_card_refuses_and_goes_on() {
    let Some(Subject { backend, .. }) = subjects().pop() else { return };
    let refused = backend.tensor(1 << 20, 1 << 20);
    assert!(matches!(refused, Err(BackendError::OutOfMemory { bytes }) if bytes == 1 << 42));
    let mut x = backend.tensor(2, 3).unwrap();
    assert!(backend.reshape(&mut x, 1 << 20, 1 << 20).is_err());
    backend.upload(&[1.0, 2.0, 3.0], 1, &mut x);
    let mut values = Vec::new();
    backend.download(&x, 0..2, &mut values).unwrap();
    assert_eq!(values, [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
}
