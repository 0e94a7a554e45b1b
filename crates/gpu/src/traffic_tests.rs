//! Tests which weights, keys and values the kernels read, counted on the card: each dispatch is run once more with a
//! text that counts every load, and compared with the bytes that the dispatch declares.

use crate::backend::Gpu;
use crate::kernel::Kernel;
use crate::linear::Blocks;
use crate::pipelines::{Text, pipeline};
use crate::recorder::{Logged, bind};
use crate::testing::card;
use phi3v_kernels::quant::{PackedShape, encode_panel};
use phi3v_kernels::testing::Noise;
use phi3v_kernels::{
    Backend, Bytes, Epilogue, Format, Heads, KV_BLOCK_TOKENS, KvFormat, KvLayout, MatrixSource, Precision,
    Span,
};

/// Returns `source` with every load from `name`, an array of `element`s, counted in an additional binding.
fn counted(source: &str, name: &str, element: &str, binding: usize) -> String {
    let (mut text, mut loads) = (String::new(), 0);
    for (i, piece) in source.split(&format!("{name}[")).enumerate() {
        let is_name = !text.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        match piece.split_once(']') {
            _ if i == 0 => text += piece,
            Some((index, rest)) if is_name => {
                assert!(!index.contains('['), "{index}");
                text += &format!("loaded({index}){rest}");
                loads += 1;
            }
            _ => text += &format!("{name}[{piece}"),
        }
    }
    assert!(loads > 0, "nothing is loaded from {name}");
    text += &format!("\n@group(0) @binding({binding}) var<storage, read_write> loads: array<atomic<u32>>;\n");
    text + &format!("fn loaded(i: u32) -> {element} {{ atomicAdd(&loads[i], 1u); return {name}[i]; }}\n")
}

/// Returns how often the dispatch loads each element of its binding `at`.
fn loads(gpu: &Gpu, logged: &Logged, at: usize) -> Vec<u32> {
    let (name, element, bytes) = match logged.kernel {
        Kernel::AttendFew { .. } | Kernel::AttendMany { .. } => ("kv", "vec4<u32>", 16),
        Kernel::DenseFew { .. } | Kernel::DenseMany { .. } => ("w", "u32", 4),
        _ => ("w", "vec4<u32>", 16),
    };
    let Logged { kernel, buffers, words, grid, .. } = logged;
    let counters = gpu.device.buffer((buffers[at].size() / bytes * 4) as usize).unwrap();
    let source = counted(&kernel.source(), name, element, buffers.len());
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: None, source };
    let module = gpu.device.raw.create_shader_module(descriptor);
    let bindings = format!("{}w", kernel.bindings());
    let text = Text { name: "counted", module: &module, bindings: &bindings, entry: kernel.entry() };
    let compiled = pipeline(&gpu.device.raw, &text, None);
    let bound: Vec<_> = buffers.iter().chain([counters.raw()]).collect();
    let group = bind(&gpu.device, &compiled.layout, &bound);
    let mut encoder = gpu.device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&compiled.pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.set_immediates(0, bytemuck::cast_slice(words));
    pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
    drop(pass);
    gpu.device.queue.submit([encoder.finish()]);
    let mut found = Vec::new();
    gpu.recorder().read(&gpu.device, &counters, 0..counters.size(), &mut found).unwrap();
    found.iter().take((buffers[at].size() / bytes) as usize).map(|count| count.to_bits()).collect()
}

/// Checks that the dispatches of `run` which declare no reads of weights, keys or values do not bind `kept` for
/// reading. Returns the dispatch that declares reads, and the index of its binding of `kept`.
fn reader(gpu: &Gpu, kept: &wgpu::Buffer, run: impl FnOnce()) -> (Logged, usize) {
    gpu.recorder().log = Some(Vec::new());
    run();
    // data recorded before the dispatches must be on the card when they run again
    gpu.finish().unwrap();
    let log = gpu.recorder().log.take().unwrap();
    let reads = |logged: &Logged| {
        let mut bound = logged.kernel.bindings().chars().zip(&logged.buffers);
        bound.position(|(access, buffer)| access == 'r' && buffer == kept)
    };
    let mut readers: Vec<_> =
        log.iter().filter_map(|logged| Some((logged.clone(), reads(logged)?))).collect();
    assert!(log.iter().all(|logged| (logged.reads > 0) == reads(logged).is_some()));
    assert_eq!(readers.len(), 1);
    readers.remove(0)
}

fn matrix(format: Format, n: usize, k: usize) -> MatrixSource {
    let values = Noise::new(1).normal(n * k);
    let bytes = match PackedShape::new(format, n, k) {
        Some(shape) => {
            let mut bytes = vec![0; shape.bytes()];
            for (panel, bytes) in bytes.chunks_exact_mut(shape.panel_bytes()).enumerate() {
                let range = shape.panel_rows(panel);
                encode_panel(shape, panel, &values[range.start * k..range.end * k], bytes);
            }
            Bytes::from(bytes)
        }
        None => phi3v_kernels::testing::matrix(&values, n, k, format, Precision::F32).bytes,
    };
    MatrixSource { bytes, format, precision: Precision::F32, n, k, bias: None }
}

/// Returns the one dispatch that reads the weights in a product of `rows` rows, and how often it loads each of their
/// elements.
fn product_loads(gpu: &Gpu, source: &MatrixSource, rows: usize, epilogue: Epilogue) -> (Logged, Vec<u32>) {
    let weight = gpu.linear_weight(source.clone()).unwrap();
    // no outliers, for which single weights are loaded again
    let values: Vec<f32> = (0..rows * source.k).map(|i| (i % 101) as f32 - 50.0).collect();
    let mut x = gpu.tensor(rows, source.k).unwrap();
    gpu.upload(&values, 0, &mut x);
    let mut out = gpu.tensor(rows, epilogue.out_cols(source.n)).unwrap();
    let buffer = weight.parts[0].buffer.raw();
    let (logged, at) = reader(gpu, buffer, || gpu.linear(&x, &weight, epilogue, &mut out));
    let loads = loads(gpu, &logged, at);
    (logged, loads)
}

#[test]
fn a_product_loads_each_packed_weight_once_for_a_block_of_rows() {
    let Some(gpu) = card() else { return };
    let units = gpu.device.units.is_some();
    for (format, block, header) in [(Format::Q8, 520, 8), (Format::Q4, 272, 16)] {
        let source = matrix(format, 128, 384);
        for (rows, epilogue) in
            [(1, Epilogue::Store), (2, Epilogue::SiluMul), (16, Epilogue::Store), (70, Epilogue::SiluMul)]
        {
            let (logged, found) = product_loads(&gpu, &source, rows, epilogue);
            let few = matches!(logged.kernel, Kernel::Few { .. });
            assert_eq!(few, rows <= 16);
            let blocks = rows.div_ceil(Blocks::new(logged.kernel, false).rows);
            // an element of q4 has two quads along K, which two neighbouring threads load if rows are many
            let each = blocks * if few || format == Format::Q8 { 1 } else { 2 };
            for (i, &loads) in found.iter().enumerate() {
                let what = format!("{:?} (units: {units}), {rows} rows, element {i}", logged.kernel);
                // scales are needed by several neighbouring threads, which find them in the cache
                let is_value = i % block >= header;
                assert!(loads as usize == each || !is_value && loads as usize >= blocks, "{loads} of {what}");
            }
            assert_eq!(logged.reads, (source.bytes.len() * blocks) as u64);
        }
    }
}

#[test]
fn a_product_loads_each_dense_weight_once_for_a_block_of_rows() {
    let Some(gpu) = card() else { return };
    for (format, in_a_word) in [(Format::F32, 1), (Format::F16, 2), (Format::Bf16, 2)] {
        let source = matrix(format, 64, 96);
        for (rows, blocks) in [(1, 1), (5, 2), (70, 2)] {
            let (logged, found) = product_loads(&gpu, &source, rows, Epilogue::Store);
            let other = found.iter().position(|&loads| loads != in_a_word * blocks);
            assert_eq!(other, None, "{:?}, {rows} rows", logged.kernel);
            assert_eq!(logged.reads, source.bytes.len() as u64 * u64::from(blocks));
        }
    }
}

/// Returns the one dispatch that reads the cache in an attention of `rows` rows after `past` tokens, and how often it
/// loads each word.
fn attention_loads(gpu: &Gpu, layout: KvLayout, past: usize, rows: usize) -> (Logged, Vec<u32>) {
    let Heads { query, key_value, dim } = layout.heads;
    let cols = (query + 2 * key_value) * dim;
    let blocks: Vec<u32> = (0..(past + rows).div_ceil(KV_BLOCK_TOKENS) as u32).rev().collect();
    let mut pool = gpu.kv_pool(layout, blocks.len()).unwrap();
    let mut batch = gpu.batch();
    for (past, rows) in [(0, past), (past, rows)] {
        let mut qkv = gpu.tensor(rows, cols).unwrap();
        gpu.upload(&Noise::new(3).normal(rows * cols), 0, &mut qkv);
        gpu.set_batch(&[Span { rows: 0..rows, past, blocks: &blocks }], &mut batch).unwrap();
        gpu.copy_kv(&qkv, 0, &batch, &mut pool);
    }
    let qkv = gpu.tensor(rows, cols).unwrap();
    let mut out = gpu.tensor(rows, query * dim).unwrap();
    let (logged, at) =
        reader(gpu, pool.layers[0].raw(), || gpu.attention_causal(&qkv, 0, &batch, &pool, &mut out));
    let loads = loads(gpu, &logged, at);
    (logged, loads)
}

/// The content of element `i` of `len`, of two blocks of two heads.
#[derive(PartialEq)]
enum Holds {
    Key,
    Value,
    Scales,
}

fn holds(layout: KvLayout, i: usize, len: usize) -> Holds {
    let head = len / 4;
    let scales = if layout.format.has_scales() { 2 * KV_BLOCK_TOKENS / 4 } else { 0 };
    match i % head {
        at if at >= head - scales => Holds::Scales,
        at if at >= (head - scales) / 2 => Holds::Value,
        _ => Holds::Key,
    }
}

#[test]
fn attention_loads_the_keys_and_values_of_a_head_once() {
    let Some(gpu) = card() else { return };
    let heads = Heads { query: 4, key_value: 2, dim: 32 };
    for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
        let layout = KvLayout { layers: 1, heads, format };
        let bytes = |found: &[u32]| -> u64 {
            let of = |i| if holds(layout, i, found.len()) == Holds::Scales { 4 } else { 16 };
            found.iter().enumerate().map(|(i, &loads)| of(i) * u64::from(loads)).sum()
        };
        // two query heads share their keys and values, and each loads them for itself; a scale is a quarter of an
        // element
        let (logged, found) = attention_loads(&gpu, layout, 2 * KV_BLOCK_TOKENS - 1, 1);
        assert!(matches!(logged.kernel, Kernel::AttendFew { .. }));
        for (i, &loads) in found.iter().enumerate() {
            let each = if holds(layout, i, found.len()) == Holds::Scales { 4 } else { 1 };
            assert_eq!(loads, 2 * each, "{format:?}, element {i}");
        }
        assert_eq!(logged.reads, bytes(&found));
        // what lies behind the last token is not read; the declared bytes are in whole blocks
        let (logged, found) = attention_loads(&gpu, layout, 69, 1);
        for (i, &loads) in found.iter().enumerate() {
            let is_scales = holds(layout, i, found.len()) == Holds::Scales;
            assert!(matches!(loads, 0 | 2) || is_scales && loads <= 8, "{format:?}: {loads} of element {i}");
        }
        assert_eq!(logged.reads * 70, bytes(&found) * 128, "{format:?}");
    }
}

#[test]
fn attention_of_many_rows_loads_keys_and_values_once_for_four_of_a_tile() {
    let Some(gpu) = card() else { return };
    let heads = Heads { query: 4, key_value: 2, dim: 32 };
    for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
        let layout = KvLayout { layers: 1, heads, format };
        let (logged, found) = attention_loads(&gpu, layout, 2 * KV_BLOCK_TOKENS - 16, 16);
        assert!(matches!(logged.kernel, Kernel::AttendMany { .. }));
        // four query rows per thread, two query heads per head of the cache; of values a thread loads a word, a quarter
        // of an element; a value's scale is needed by each row that sees it
        for (i, &loads) in found.iter().enumerate() {
            let is_right = match holds(layout, i, found.len()) {
                Holds::Key => loads == 8,
                Holds::Value => loads == 4 * 8,
                Holds::Scales => loads > 0,
            };
            assert!(is_right, "{format:?}: {loads} of element {i}");
        }
        assert_eq!(logged.reads, 2 * 16 * found.len() as u64);
    }
}
