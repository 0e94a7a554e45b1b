//! Every operation against the CPU's scalar level, with the cases that all backends run; on whatever card there is, if only
//! Mesa's software Vulkan.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use phi3v_gpu::testing::{card, use_side};
use phi3v_gpu::{Choice, Gpu, GpuOptions, UseUnits};
use phi3v_kernels::quant::{PackedShape, encode_panel};
use phi3v_kernels::testing::conformance::{Subject, attention, dense, packed, rows};
use phi3v_kernels::testing::{Noise, Variant, skip};
use phi3v_kernels::{
    Backend, BackendError, Bytes, Cpu, Epilogue, Format, Heads, KvFormat, KvLayout, MatrixSource, Precision,
    Span,
};

const KV_FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8];

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
fn packed_products_of_long_rows() {
    packed::long_rows(&scalar().backend, &subjects());
}

#[test]
fn packed_products_within_the_stated_errors() {
    packed::errors(&subjects());
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

/// Two sequences of `rows` tokens side by side, then one more token of the first: `[2 rows + 1, heads dim]`.
fn attended(gpu: &Gpu, layout: KvLayout, qkv: &[f32], rows: usize) -> Vec<f32> {
    let Heads { query, key_value, dim } = layout.heads;
    let cols = (query + 2 * key_value) * dim;
    let mut pool = gpu.kv_pool(layout, 2).unwrap();
    let (mut batch, mut all) = (gpu.batch(), Vec::new());
    let first = Span { rows: 0..rows, past: 0, blocks: &[1] };
    let second = Span { rows: rows..2 * rows, past: 0, blocks: &[0] };
    let next = Span { rows: 0..1, past: rows, blocks: &[1] };
    let (together, alone) = qkv.split_at(2 * rows * cols);
    for (spans, qkv) in [(vec![first, second], together), (vec![next], alone)] {
        let count = qkv.len() / cols;
        let mut input = gpu.tensor(count, cols).unwrap();
        gpu.upload(qkv, 0, &mut input);
        gpu.set_batch(&spans, &mut batch).unwrap();
        gpu.copy_kv(&input, 0, &batch, &mut pool);
        let mut out = gpu.tensor(count, query * dim).unwrap();
        gpu.attention_causal(&input, 0, &batch, &pool, &mut out);
        let mut values = Vec::new();
        gpu.download(&out, 0..count, &mut values).unwrap();
        all.extend(values);
    }
    all
}

/// What is no number in a query, a key or a value shows in its head of every row that sees it, and nowhere else, also where the
/// cache holds integers. (An infinity that is kept as it is may be a key of no weight.)
#[test]
fn what_is_no_number_in_the_cache_is_not_hidden() {
    const DIM: usize = 32;
    let heads = Heads { query: 2, key_value: 2, dim: DIM };
    let Some(Subject { backend: gpu, .. }) = subjects().pop() else { return };
    for (rows, format) in [3, 20].into_iter().flat_map(|rows| KV_FORMATS.map(|format| (rows, format))) {
        let layout = KvLayout { layers: 1, heads, format };
        let qkv = Noise::new(rows as u64).normal((2 * rows + 1) * 6 * DIM);
        let clean = attended(&gpu, layout, &qkv, rows);
        assert!(clean.iter().all(|v| v.is_finite()));
        let broken = if format == KvFormat::Q8 {
            &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY][..]
        } else {
            &[f32::NAN]
        };
        for (part, &broken) in (0..3).flat_map(|part| broken.iter().map(move |broken| (part, broken))) {
            let mut qkv = qkv.clone();
            // token 1 of the first sequence, value 3 of the first head
            qkv[6 * DIM + part * 2 * DIM + 3] = broken;
            let found = attended(&gpu, layout, &qkv, rows);
            for (i, (found, clean)) in found.iter().zip(&clean).enumerate() {
                let (row, head, d) = (i / (2 * DIM), i / DIM % 2, i % DIM);
                let what =
                    format!("{broken} in part {part} of {format:?}, {rows} rows: row {row}, value {i}");
                let sees = head == 0
                    && if part == 0 { row == 1 } else { (1..rows).contains(&row) || row == 2 * rows };
                // of a value that is kept alone its own column; a row before it may share its workgroup with those that see it
                let certain = part < 2 || format == KvFormat::Q8 || d == 3 && row > 0;
                match (sees, certain) {
                    (true, true) => assert!(found.is_nan(), "{what} is {found}"),
                    (false, _) if head == 1 || certain || row >= rows => assert_eq!(found, clean, "{what}"),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn what_is_rotated_and_stored_at_a_time_is_as_in_steps() {
    attention::rotated_rows_are_stored(&subjects());
}

#[test]
fn a_prompt_may_be_cut_into_chunks() {
    attention::prompts_may_be_cut(&subjects());
}

#[test]
fn full_attention() {
    attention::full_agrees(&scalar().backend, &subjects());
}

/// `[n, k]` values and as many biases as there are rows.
fn packed_matrix(format: Format, k: usize, rows: &[f32], bias: Vec<f32>) -> MatrixSource {
    let n = bias.len();
    let shape = PackedShape::new(format, n, k).unwrap();
    let mut bytes = vec![0; shape.bytes()];
    for (panel, bytes) in bytes.chunks_exact_mut(shape.panel_bytes()).enumerate() {
        let range = shape.panel_rows(panel);
        encode_panel(shape, panel, &rows[range.start * k..range.end * k], bytes);
    }
    let (bytes, bias) = (Bytes::from(bytes), Some(bias));
    MatrixSource { bytes, format, precision: Precision::F32, n, k, bias }
}

fn random_matrix(format: Format, n: usize, k: usize, noise: &mut Noise) -> MatrixSource {
    packed_matrix(format, k, &noise.normal(n * k), noise.normal(n))
}

fn product<B: Backend>(backend: &B, source: &MatrixSource, x: &[f32], epilogue: Epilogue) -> Vec<f32> {
    let weight = backend.linear_weight(source.clone()).unwrap();
    let rows = x.len() / source.k;
    let mut input = backend.tensor(rows, source.k).unwrap();
    backend.upload(x, 0, &mut input);
    let mut out = backend.tensor(rows, epilogue.out_cols(source.n)).unwrap();
    backend.linear(&input, &weight, epilogue, &mut out);
    let mut values = Vec::new();
    backend.download(&out, 0..rows, &mut values).unwrap();
    values
}

/// Whether sums on matrix units are the integers of `dot4`.
#[test]
fn matrix_units_give_the_bits_of_integer_products() {
    const K: usize = 1024;
    let Some(Subject { name, backend: gpu }) = subjects().pop() else { return };
    if !gpu.uses_matrix_units() {
        return skip("the card has no matrix units", "take Mesa 26.1, as scripts/test-gpu says");
    }
    let options =
        GpuOptions { choice: Choice::Name(name), use_units: UseUnits::Never, ..GpuOptions::default() };
    let without = Gpu::new(&options).unwrap();
    let mut noise = Noise::new(21);
    for format in [Format::Q8, Format::Q4] {
        let random = random_matrix(format, 512, K, &mut noise);
        // sums as large as they can be
        let largest = packed_matrix(format, K, &[-1.0; 64 * K], vec![0.0; 64]);
        for (source, x, epilogue) in [
            (&random, noise.with_outliers(256, K), Epilogue::Store),
            (&random, noise.normal(77 * K), Epilogue::SiluMul),
            (&largest, vec![-127.0; 20 * K], Epilogue::Store),
        ] {
            let expected = product(&without, source, &x, epilogue);
            for side in [64, 128] {
                use_side(&gpu, side);
                let found = product(&gpu, source, &x, epilogue);
                let different =
                    found.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                assert_eq!(
                    different,
                    0,
                    "of {} values, {format:?}, {epilogue:?}, tiles of {side}",
                    found.len()
                );
            }
        }
    }
}

/// How many values of packed products have other bits than the processor's, which is told for scripts/bench-gpu: none where the
/// driver fuses multiplication and addition, otherwise a rounding or two in the last place.
#[test]
fn products_have_the_bits_of_the_processor_but_for_roundings() {
    const K: usize = 640;
    let Some(Subject { backend: gpu, .. }) = subjects().pop() else { return };
    let mut noise = Noise::new(22);
    let (mut different, mut all) = (0, 0);
    for format in [Format::Q8, Format::Q4] {
        let source = random_matrix(format, 200, K, &mut noise);
        for rows in [1, 2, 5, 70] {
            let x = noise.with_outliers(rows, K);
            let found = product(&gpu, &source, &x, Epilogue::Store);
            let expected = product(&scalar().backend, &source, &x, Epilogue::Store);
            let largest = expected.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-6 * largest, "{format:?}: {found}, not {expected}");
                different += u32::from(found.to_bits() != expected.to_bits());
                all += 1;
            }
        }
    }
    let units = if gpu.uses_matrix_units() { "matrix units" } else { "dot4" };
    // on a line of its own, also behind the dots of the test harness
    println!(
        "\n{{\"name\": \"products by {units}: bits unlike the processor's, of {all} values\", \"value\": {different}, \"unit\": \"values\"}}"
    );
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
        let source = random_matrix(Format::Q8, n, K, &mut noise);
        assert!(source.bytes.len() > 4 << 20);
        for (rows, epilogue) in [(1, Epilogue::Add), (2, Epilogue::SiluMul), (20, Epilogue::SiluMul)] {
            let x = noise.normal(rows * K);
            let [found, expected] = [&cut, &whole.backend].map(|gpu| product(gpu, &source, &x, epilogue));
            assert_eq!(found, expected, "{n} columns, {rows} rows, {epilogue:?}");
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
