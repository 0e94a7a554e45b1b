//! What a card does besides computing: it is measured, shared, filled, lost and opened again.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use phi3v_gpu::testing::{card, card_with, limit_memory, lose, miss_submission};
use phi3v_gpu::{Gpu, GpuError, GpuOptions, GpuTensor, GpuVector};
use phi3v_kernels::quant::{PackedShape, encode_panel};
use phi3v_kernels::testing::{Noise, skip};
use phi3v_kernels::{
    Backend, BackendError, Bytes, Epilogue, Format, FullAttention, Heads, KvFormat, KvLayout, MatrixSource,
    Norm, Precision, Span,
};
use std::path::PathBuf;

fn matrix(n: usize, k: usize) -> MatrixSource {
    let shape = PackedShape::new(Format::Q8, n, k).unwrap();
    let values = Noise::new(5).normal(n * k);
    let mut bytes = vec![0; shape.bytes()];
    for (panel, bytes) in bytes.chunks_exact_mut(shape.panel_bytes()).enumerate() {
        let range = shape.panel_rows(panel);
        encode_panel(shape, panel, &values[range.start * k..range.end * k], bytes);
    }
    let bytes = Bytes::from(bytes);
    MatrixSource { bytes, format: Format::Q8, precision: Precision::F32, n, k, bias: None }
}

fn tensor(gpu: &Gpu, values: &[f32], cols: usize) -> GpuTensor {
    let mut tensor = gpu.tensor(values.len() / cols, cols).unwrap();
    gpu.upload(values, 0, &mut tensor);
    tensor
}

fn values(gpu: &Gpu, tensor: &GpuTensor) -> Result<Vec<f32>, BackendError> {
    let mut values = Vec::new();
    gpu.download(tensor, 0..gpu.shape(tensor).0, &mut values)?;
    Ok(values)
}

/// `rows` rows by a matrix of 128 columns.
fn product(gpu: &Gpu, rows: usize) -> Result<Vec<f32>, BackendError> {
    const K: usize = 256;
    let weight = gpu.linear_weight(matrix(128, K))?;
    let x = tensor(gpu, &Noise::new(6).normal(rows * K), K);
    let mut out = gpu.tensor(rows, 128)?;
    gpu.linear(&x, &weight, Epilogue::Store, &mut out);
    values(gpu, &out)
}

#[test]
fn every_kernel_is_timed_where_that_is_asked_for() {
    let Some(plain) = card() else { return };
    let options = GpuOptions { timestamps: true, ..GpuOptions::default() };
    let timed = match Gpu::open(plain.adapter().clone(), &options) {
        Err(GpuError::Unsuitable { missing, .. }) if missing.contains("timestamps") => {
            return skip("the card writes no timestamps", "run it on another card, as Mesa's in software");
        }
        timed => timed.unwrap(),
    };
    let _ = timed.take_kernel_times(); // of the self-test
    let before = timed.counts();
    // more dispatches than are timed at a time
    let a = tensor(&timed, &[1.0; 64], 64);
    let mut sum = timed.tensor(1, 64).unwrap();
    (0..2100).for_each(|_| timed.add(&a, &mut sum));
    assert_eq!(values(&timed, &sum).unwrap(), [2100.0; 64]);
    for rows in [1, 20] {
        assert_eq!(product(&timed, rows).unwrap(), product(&plain, rows).unwrap(), "{rows} rows");
    }
    let times = timed.take_kernel_times();
    let calls: u64 = times.iter().map(|time| time.calls).sum();
    assert_eq!(calls, timed.counts().dispatches - before.dispatches);
    assert!(times.is_sorted_by(|a, b| a.seconds >= b.seconds), "{times:?}");
    let of = |name: &str| times.iter().find(|time| time.kernel.contains(name)).unwrap();
    assert_eq!(of("Add").calls, 2100);
    let few = of("Few { format: Q8, rows: 1 } [128, 256]");
    let bytes = PackedShape::new(Format::Q8, 128, 256).unwrap().bytes() as u64;
    assert_eq!((few.calls, few.bytes_read, few.multiplications), (1, bytes, 128 * 256));
    assert!(times.iter().all(|time| (0.0..10.0).contains(&time.seconds)), "{times:?}");
    assert!(times.iter().any(|time| time.seconds > 0.0), "{times:?}");
    assert_eq!((timed.take_kernel_times(), plain.take_kernel_times()), (vec![], vec![]));
}

/// A prompt's chunk after `past` tokens, whose queries, keys and values are noise.
fn attended(gpu: &Gpu, past: usize, rows: usize) -> Vec<f32> {
    let heads = Heads { query: 2, key_value: 2, dim: 32 };
    let cols = 3 * heads.query * heads.dim;
    let blocks: Vec<u32> = (0..(past + rows).div_ceil(64) as u32).collect();
    let mut pool = gpu.kv_pool(KvLayout { layers: 1, heads, format: KvFormat::Bf16 }, blocks.len()).unwrap();
    let (mut batch, mut noise) = (gpu.batch(), Noise::new(7));
    let mut out = gpu.tensor(0, heads.query * heads.dim).unwrap();
    for (past, rows) in [(0, past), (past, rows)] {
        let qkv = tensor(gpu, &noise.normal(rows * cols), cols);
        gpu.set_batch(&[Span { rows: 0..rows, past, blocks: &blocks }], &mut batch).unwrap();
        gpu.copy_kv(&qkv, 0, &batch, &mut pool);
        gpu.reshape(&mut out, rows, heads.query * heads.dim).unwrap();
        gpu.attention_causal(&qkv, 0, &batch, &pool, &mut out);
    }
    values(gpu, &out).unwrap()
}

/// Attention of five groups of 70 rows, and gates of 300 rows by a packed and by a dense matrix.
fn many_rows(gpu: &Gpu) -> Vec<f32> {
    const K: usize = 256;
    let heads = Heads { query: 4, key_value: 4, dim: 32 };
    let mut noise = Noise::new(8);
    let parts = [(); 3].map(|()| tensor(gpu, &noise.normal(350 * 128), 128));
    let mut out = gpu.tensor(350, 128).unwrap();
    let shape = FullAttention { group: 70, heads, precision: Precision::F32 };
    gpu.attention_full(parts.each_ref(), shape, &mut out);
    let mut all = values(gpu, &out).unwrap();
    let dense = phi3v_kernels::testing::matrix(&noise.normal(128 * K), 128, K, Format::Bf16, Precision::F32);
    let x = tensor(gpu, &noise.normal(300 * K), K);
    for source in [matrix(128, K), dense] {
        let weight = gpu.linear_weight(source).unwrap();
        let mut out = gpu.tensor(300, 64).unwrap();
        gpu.linear(&x, &weight, Epilogue::SiluMul, &mut out);
        all.extend(values(gpu, &out).unwrap());
    }
    all
}

/// As a chunk of 2,048 tokens after 100,000 would keep a card busy for seconds, or the gates of one that has to emulate integer products.
#[test]
fn no_submission_is_longer_than_it_may_be() {
    // a tile of 16 rows after 600 tokens has 1.3 million multiplications, 64 rows of a product of `many_rows` 2.1 million; those of floats
    // count four times
    const LIMIT: u64 = 9_000_000;
    let runs: [fn(&Gpu) -> Vec<f32>; 2] = [|gpu| attended(gpu, 500, 100), many_rows];
    for run in runs {
        let Some(short) = card_with(&GpuOptions { work_max: Some(LIMIT), ..GpuOptions::default() }) else {
            return;
        };
        let whole = card().unwrap();
        assert_eq!(run(&short), run(&whole));
        assert!(whole.counts().work_largest > LIMIT, "{:?}", whole.counts());
        assert!(short.counts().work_largest <= LIMIT, "{:?}", short.counts());
        assert!(short.counts().submissions > whole.counts().submissions);
    }
}

/// As many kernels as a step of Phi-3.5-vision has: the card begins when 32 are recorded, and four submissions do.
#[test]
fn a_card_with_nothing_to_do_begins_before_all_is_recorded() {
    let Some(gpu) = card() else { return };
    let a = tensor(&gpu, &[1.0; 64], 64);
    let mut sum = gpu.tensor(1, 64).unwrap();
    gpu.finish().unwrap();
    let before = gpu.counts().submissions;
    let submitted = || gpu.counts().submissions - before;
    for (adds, submissions) in [(31, 0), (1, 1), (127, 1), (1, 2), (195, 3)] {
        (0..adds).for_each(|_| gpu.add(&a, &mut sum));
        assert_eq!(submitted(), submissions, "{:?}", gpu.counts());
    }
    assert_eq!(values(&gpu, &sum).unwrap(), [355.0; 64]);
    assert_eq!((gpu.counts().dispatches, submitted()), (355, 4));
    // nothing is under way again
    (0..32).for_each(|_| gpu.add(&a, &mut sum));
    assert_eq!(submitted(), 5);
}

/// One norm and two products of it, as many threads do it at a time.
fn normed(gpu: &Gpu, weight: &GpuVector, rows: usize) -> Vec<f32> {
    const K: usize = 256;
    let products = [64, 128].map(|n| (gpu.linear_weight(matrix(n, K)).unwrap(), n));
    let x = tensor(gpu, &Noise::new(rows as u64).normal(rows * K), K);
    let mut outs = products.each_ref().map(|(_, n)| gpu.tensor(rows, *n).unwrap());
    let mut between = gpu.tensor(0, 1).unwrap();
    let [first, second] = &mut outs;
    let mut pairs = [(&products[0].0, first), (&products[1].0, second)];
    gpu.normed_linear(&x, Norm::Rms(weight, 1e-5), &mut pairs, &mut between).unwrap();
    outs.iter().flat_map(|out| values(gpu, out).unwrap()).collect()
}

#[test]
fn threads_may_share_a_card() {
    let Some(gpu) = card() else { return };
    let weight = gpu.vector(&[1.0; 256]).unwrap();
    let rows = [1, 3, 30];
    let alone = rows.map(|rows| normed(&gpu, &weight, rows));
    std::thread::scope(|scope| {
        for (rows, alone) in rows.iter().zip(&alone) {
            let (gpu, weight) = (&gpu, &weight);
            scope.spawn(move || (0..20).for_each(|_| assert_eq!(&normed(gpu, weight, *rows), alone)));
        }
    });
}

#[test]
fn a_buffer_waits_for_the_memory_of_one_that_was_dropped() {
    const ROWS: usize = 3000;
    let limit = Some(30 << 20);
    let Some(gpu) = card_with(&GpuOptions { memory_bytes_max: limit, ..GpuOptions::default() }) else {
        return;
    };
    let addend = tensor(&gpu, &[1.0; 1024], 1024);
    for _ in 0..3 {
        // 12 MB, of which there is room for one; its bindings are kept, and the card is still busy with it
        let mut x = gpu.tensor(ROWS, 1024).unwrap();
        gpu.add(&addend, &mut x);
    }
    let mut x = gpu.tensor(ROWS, 1024).unwrap();
    assert!(matches!(gpu.tensor(ROWS, 1024), Err(BackendError::OutOfMemory { .. })));
    gpu.add(&addend, &mut x);
    let mut last = Vec::new();
    gpu.download(&x, ROWS - 1..ROWS, &mut last).unwrap();
    assert_eq!(last, [1.0; 1024]);
}

#[test]
fn a_tensor_that_grows_gives_its_memory_for_it() {
    const ROWS: usize = 3000;
    let limit = Some(30 << 20);
    let Some(gpu) = card_with(&GpuOptions { memory_bytes_max: limit, ..GpuOptions::default() }) else {
        return;
    };
    // 12 MB, while the card is busy with it, and then 18, for which there is room without the smaller one alone
    let mut x = gpu.tensor(ROWS, 1024).unwrap();
    gpu.add(&tensor(&gpu, &[1.0; 1024], 1024), &mut x);
    gpu.reshape(&mut x, 9, ROWS * 170).unwrap();
    assert_eq!(gpu.shape(&x), (9, ROWS * 170));
    // where there is no room at all, nothing is left of it, and it can be given a shape again
    assert!(matches!(gpu.reshape(&mut x, ROWS, 4096), Err(BackendError::OutOfMemory { .. })));
    assert_eq!(gpu.shape(&x).0, 0);
    gpu.reshape(&mut x, 1, 1024).unwrap();
    gpu.upload(&[2.0; 1024], 0, &mut x);
    assert_eq!(values(&gpu, &x).unwrap(), [2.0; 1024]);
}

/// As norms, weights and pictures come: each needs 12 MB, and as much again until it is copied, which what was dropped gives.
#[test]
fn what_is_sent_waits_for_the_memory_of_what_was_dropped() {
    const ROWS: usize = 3000;
    let limit = Some(42 << 20);
    let Some(gpu) = card_with(&GpuOptions { memory_bytes_max: limit, ..GpuOptions::default() }) else {
        return;
    };
    let ones = vec![1.0; ROWS * 1024];
    let shape = PackedShape::new(Format::Q8, 4096, 2944).unwrap();
    let bytes = Bytes::from(vec![0; shape.bytes()]);
    let zeros = MatrixSource { bytes, n: 4096, k: 2944, ..matrix(64, 128) };
    for _ in 0..3 {
        drop(gpu.vector(&ones).unwrap());
        drop(gpu.linear_weight(zeros.clone()).unwrap());
        let x = tensor(&gpu, &ones, 1024);
        let mut last = Vec::new();
        gpu.download(&x, ROWS - 1..ROWS, &mut last).unwrap();
        assert_eq!(last, [1.0; 1024]);
    }
    // where there is none to be had, that is an error of what was asked for, and the card goes on
    let held = [(); 2].map(|()| gpu.tensor(ROWS, 1024).unwrap());
    assert!(matches!(gpu.vector(&ones), Err(BackendError::OutOfMemory { .. })));
    drop(held);
    assert_eq!(product(&gpu, 20).unwrap(), product(&card().unwrap(), 20).unwrap());
}

/// As when a game starts beside a server: what a step writes, also a picture, and the table of a new sequence need no memory that is not
/// there already.
#[test]
fn a_card_whose_memory_another_program_takes_goes_on_with_what_it_has() {
    const ROWS: usize = 3000;
    let Some(gpu) = card() else { return };
    let ones = vec![1.0; ROWS * 1024];
    let mut x = gpu.tensor(ROWS, 1024).unwrap();
    let right = product(&gpu, 20).unwrap();
    limit_memory(&gpu, Some(0));
    for _ in 0..3 {
        assert_eq!(product(&gpu, 20).unwrap(), right);
        gpu.upload(&ones, 0, &mut x);
        assert!(values(&gpu, &x).unwrap() == ones);
    }
    gpu.set_batch(&[Span { rows: 0..1, past: 0, blocks: &[0] }], &mut gpu.batch()).unwrap();
    assert!(matches!(gpu.tensor(ROWS, 1024), Err(BackendError::OutOfMemory { .. })));
    assert!(matches!(gpu.vector(&ones), Err(BackendError::OutOfMemory { .. })));
    // the game has ended
    limit_memory(&gpu, None);
    drop(gpu.vector(&ones).unwrap());
    assert_eq!(product(&gpu, 20).unwrap(), right);
}

/// 20 MB, which go in two pieces.
#[test]
fn what_is_sent_in_pieces_arrives_whole() {
    let Some(gpu) = card() else { return };
    let sent: Vec<f32> = (0..5_000_000).map(|i| i as f32).collect();
    assert_eq!(values(&gpu, &tensor(&gpu, &sent, 1000)).unwrap(), sent);
}

#[test]
fn a_card_that_is_lost_is_an_error_and_can_be_opened_again() {
    let Some(gpu) = card() else { return };
    let whole = product(&gpu, 20).unwrap();
    let x = gpu.tensor(2, 3).unwrap();
    lose(&gpu);
    for error in [
        values(&gpu, &x).unwrap_err(),
        gpu.finish().unwrap_err(),
        gpu.tensor(1, 1).err().unwrap(),
        gpu.vector(&[1.0]).err().unwrap(),
        gpu.linear_weight(matrix(64, 128)).err().unwrap(),
    ] {
        assert!(matches!(error, BackendError::Device { .. }), "{error}");
    }
    // what cannot return an error does not end the program
    let mut y = gpu.tensor(2, 3).unwrap_or(x);
    gpu.upload(&[0.0; 6], 0, &mut y);
    assert!(values(&gpu, &y).is_err());
    drop(y);
    drop(gpu);
    assert_eq!(product(&card().unwrap(), 20).unwrap(), whole);
}

#[test]
fn what_the_card_left_undone_is_an_error_and_not_an_earlier_result() {
    let options = GpuOptions { count_submissions: true, ..GpuOptions::default() };
    let Some(gpu) = card_with(&options) else { return };
    let whole = product(&gpu, 20).unwrap();
    assert_eq!(product(&gpu, 20).unwrap(), whole);
    miss_submission(&gpu);
    for _ in 0..2 {
        let error = product(&gpu, 20).unwrap_err();
        assert!(matches!(&error, BackendError::Device { reason } if reason.contains("undone")), "{error}");
    }
}

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two programs, or a server's old model and its new, open and close a card at a time and keep its kernels in one folder.
#[test]
fn cards_are_opened_and_closed_side_by_side() {
    let Some(first) = card() else { return };
    let right = product(&first, 20).unwrap();
    let folder = Folder(std::env::temp_dir().join(format!("phi3v-gpu-side-{}", std::process::id())));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2 {
                    let options = GpuOptions { cache: Some(folder.0.clone()), ..GpuOptions::default() };
                    let gpu = Gpu::open(first.adapter().clone(), &options).unwrap();
                    assert_eq!(product(&gpu, 20).unwrap(), right);
                }
            });
        }
    });
    let kept = std::fs::read_dir(&folder.0).unwrap();
    let names: Vec<_> = kept.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.ends_with(".self-test")), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with(".part")), "{names:?}");
}
