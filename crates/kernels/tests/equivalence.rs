//! Every operation at every CPU level and at awkward shapes against the scalar level, and the scalar level against f64.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

use phi3v_kernels::testing::{Noise, Variant, error, kept, matrix, oracle, tolerances, variants};
use phi3v_kernels::{
    Backend, Cpu, Epilogue, Format, FullAttention, Heads, KV_BLOCK_TOKENS, KvFormat, KvLayout, Norm,
    Precision, Span, cpu::CpuTensor,
};
use std::io::Write;

const DENSE: [Format; 3] = [Format::F32, Format::F16, Format::Bf16];
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];
const EPILOGUES: [Epilogue; 5] =
    [Epilogue::Store, Epilogue::Add, Epilogue::Gelu, Epilogue::QuickGelu, Epilogue::SiluMul];

fn scalar() -> Cpu {
    Variant::SCALAR.cpu(2).unwrap()
}

/// Every variant above scalar that this processor can run; says loudly which are not tested.
fn levels() -> Vec<Cpu> {
    let (available, missing) = variants();
    for variant in missing {
        // past libtest, which keeps what the print macros write while the test passes
        let _ = writeln!(std::io::stderr(), "SKIPPED: {variant} is not available here");
    }
    available.iter().filter(|variant| **variant != Variant::SCALAR).map(|v| v.cpu(2).unwrap()).collect()
}

fn tensor(cpu: &Cpu, values: &[f32], cols: usize) -> CpuTensor {
    let mut tensor = cpu.tensor(values.len() / cols, cols).unwrap();
    cpu.upload(values, 0, &mut tensor);
    tensor
}

/// One product: x `[m, k]`, w `[n, k]` with bias, into an output that holds `before`.
struct Linear {
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    before: Vec<f32>,
    n: usize,
    k: usize,
}

impl Linear {
    fn random(m: usize, n: usize, k: usize) -> Self {
        let mut random = Noise::new((m * 31 + n * 7 + k) as u64);
        let scale = 4.0 / (k as f32).sqrt();
        Self {
            x: random.values(m * k),
            w: random.values(n * k).iter().map(|v| v * scale).collect(),
            bias: random.values(n),
            before: random.values(m * n),
            n,
            k,
        }
    }

    fn run(&self, cpu: &Cpu, format: Format, precision: Precision, epilogue: Epilogue) -> Vec<f32> {
        let mut source = matrix(&self.w, (self.n, self.k), format, precision);
        source.bias = Some(self.bias.clone());
        let weight = cpu.linear_weight(source).unwrap();
        let m = self.x.len() / self.k;
        let cols = epilogue.out_cols(self.n);
        let mut out = tensor(cpu, &self.before[..m * cols], cols);
        cpu.linear(&tensor(cpu, &self.x, self.k), &weight, epilogue, &mut out);
        out.values().to_vec()
    }

    fn expected(&self, format: Format, precision: Precision, epilogue: Epilogue) -> Vec<f32> {
        let x: Vec<f32> = self.x.iter().map(|&v| kept(v, Format::F32, precision)).collect();
        let w: Vec<f32> = self.w.iter().map(|&v| kept(v, format, precision)).collect();
        let product = oracle::product(&x, &w, self.k);
        let rows = product.chunks_exact(self.n);
        let finish = |(i, row): (usize, &[f64])| -> Vec<f32> {
            let y = |j: usize| row[j] + f64::from(self.bias[j]);
            let before = |j: usize| f64::from(self.before[i * self.n + j]);
            let one = |j: usize| oracle::epilogue(epilogue, y(j), before(j), || y(self.n / 2 + j));
            (0..epilogue.out_cols(self.n)).map(|j| one(j) as f32).collect()
        };
        rows.enumerate().flat_map(finish).collect()
    }
}

fn linear_tolerance(precision: Precision) -> f32 {
    let sum = if precision == Precision::F32 { tolerances::SUM_ORDER } else { tolerances::SUM_ORDER_BF16 };
    sum + tolerances::ACTIVATION
}

#[test]
fn scalar_linear_is_the_formula() {
    let scalar = scalar();
    for (m, n, k) in [(1, 64, 96), (3, 100, 588), (17, 34, 31), (2, 6, 8192)] {
        let case = Linear::random(m, n, k);
        for format in DENSE {
            for precision in PRECISIONS {
                for epilogue in EPILOGUES {
                    let found = case.run(&scalar, format, precision, epilogue);
                    let error = error(&found, &case.expected(format, precision, epilogue));
                    let name = format!("[{m}, {k}] x [{n}, {k}] {format:?} {precision:?} {epilogue:?}");
                    assert!(error <= linear_tolerance(precision), "{name}: {error}");
                }
            }
        }
    }
}

/// Rows 1 to 17 cross from streamed to packed products; 588 is the patch embedding, 31 has half a pair, 3100 crosses
/// the blocks of K, widths leave incomplete panels.
const LINEAR_SHAPES: [(usize, usize, usize); 14] = [
    (1, 64, 96),
    (1, 258, 3100),
    (2, 100, 588),
    (3, 66, 31),
    (4, 192, 256),
    (5, 2, 33),
    (7, 130, 96),
    (16, 128, 588),
    (17, 128, 588),
    (18, 66, 31),
    (23, 100, 3100),
    (33, 192, 64),
    (577, 96, 64),
    (301, 70, 40),
];

#[test]
fn linear_agrees_with_scalar() {
    let scalar = scalar();
    for (m, n, k) in LINEAR_SHAPES {
        let case = Linear::random(m, n, k);
        for format in DENSE {
            for precision in PRECISIONS {
                for epilogue in EPILOGUES {
                    let expected = case.run(&scalar, format, precision, epilogue);
                    for cpu in levels() {
                        let error = error(&case.run(&cpu, format, precision, epilogue), &expected);
                        let name = format!("{} [{m}, {k}] x [{n}, {k}] {format:?}", cpu.level());
                        let name = format!("{name} {precision:?} {epilogue:?}");
                        assert!(error <= linear_tolerance(precision), "{name}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_company_or_the_threads() {
    for variant in variants().0 {
        let [one, three] = [1, 3].map(|threads| variant.cpu(threads).unwrap());
        for precision in PRECISIONS {
            for (few, many) in [(1, 16), (17, 61)] {
                let case = Linear::random(many, 192, 1600);
                let mut part = Linear::random(many, 192, 1600);
                part.x.truncate(few * part.k);
                part.before.truncate(few * part.n);
                let all = case.run(&three, Format::Bf16, precision, Epilogue::Add);
                let some = part.run(&one, Format::Bf16, precision, Epilogue::Add);
                assert_eq!(some[..], all[..few * 192], "{variant} {precision:?} {few} of {many} rows");
            }
        }
    }
}

#[test]
fn norms_are_their_formulas() {
    let mut cpus = levels();
    cpus.push(scalar());
    for (rows, cols) in [(1, 3072), (3, 96), (17, 7), (40, 588), (2, 1), (577, 64)] {
        let mut random = Noise::new(cols as u64);
        let x: Vec<f32> = random.values(rows * cols).iter().map(|v| 3.0 * v + 0.7).collect();
        let (weight, bias) = (random.values(cols), random.values(cols));
        let rms: Vec<f32> =
            x.chunks_exact(cols).flat_map(|x| oracle::rms_norm(x, &weight, 1e-5)).map(|v| v as f32).collect();
        let layer: Vec<f32> = x
            .chunks_exact(cols)
            .flat_map(|x| oracle::layer_norm(x, &weight, &bias, 1e-5))
            .map(|v| v as f32)
            .collect();
        for cpu in &cpus {
            let x = tensor(cpu, &x, cols);
            let (weight, bias) = (cpu.vector(&weight).unwrap(), cpu.vector(&bias).unwrap());
            let mut out = cpu.tensor(rows, cols).unwrap();
            cpu.norm(&x, Norm::Rms(&weight, 1e-5), &mut out);
            assert!(error(out.values(), &rms) <= tolerances::ROW, "{} rms_norm {cols}", cpu.level());
            cpu.norm(&x, Norm::Layer((&weight, &bias), 1e-5), &mut out);
            assert!(error(out.values(), &layer) <= tolerances::ROW, "{} layer_norm {cols}", cpu.level());
        }
    }
}

#[test]
fn sums_and_rotations_are_their_formulas() {
    let mut cpus = levels();
    cpus.push(scalar());
    for (rows, dim) in [(1, 96), (5, 16), (3, 2), (70, 64), (2, 34)] {
        let heads = Heads { query: 4, key_value: 2, dim };
        let cols = 8 * dim;
        let mut random = Noise::new(dim as u64);
        let (qkv, addend) = (random.values(rows * cols), random.values(cols));
        let angles = random.values(rows * dim / 2);
        let table =
            |row: &[f32]| [row.iter().map(|a| a.cos()).collect(), row.iter().map(|a| a.sin()).collect()];
        let cos_sin: Vec<f32> =
            angles.chunks_exact(dim / 2).flat_map(table).flat_map(|v: Vec<f32>| v).collect();
        let rotated = |i: usize| {
            let (row, head, d) = (i / cols, i % cols / dim, i % dim);
            if head >= 6 {
                return qkv[i];
            }
            let j = d % (dim / 2);
            let (c, s) = (f64::from(cos_sin[row * dim + j]), f64::from(cos_sin[row * dim + dim / 2 + j]));
            let a = f64::from(qkv[row * cols + head * dim + j]);
            let b = f64::from(qkv[row * cols + head * dim + j + dim / 2]);
            (if d < dim / 2 { a * c - b * s } else { b * c + a * s }) as f32
        };
        let expected: Vec<f32> = (0..qkv.len()).map(rotated).collect();
        let sums: Vec<f32> = qkv.iter().enumerate().map(|(i, v)| v + addend[i % cols]).collect();
        for cpu in &cpus {
            let mut x = tensor(cpu, &qkv, cols);
            cpu.rope(&tensor(cpu, &cos_sin, dim), heads, &mut x);
            assert!(error(x.values(), &expected) <= tolerances::ROW, "{} rope {dim}", cpu.level());
            let mut x = tensor(cpu, &qkv, cols);
            cpu.add(&tensor(cpu, &addend, cols), &mut x);
            assert_eq!(x.values(), sums, "{} add {cols}", cpu.level());
        }
    }
}

#[test]
fn rows_are_looked_up() {
    let mut random = Noise::new(3);
    let values = random.values(10 * 33);
    for cpu in levels().into_iter().chain([scalar()]) {
        for format in DENSE {
            let table = cpu.embedding(matrix(&values, (10, 33), format, Precision::F32)).unwrap();
            let mut out = tensor(&cpu, &[7.0; 4 * 33], 33);
            cpu.embed(&table, &[9, 0, 9], 1, &mut out);
            let row =
                |i: usize| values[i * 33..(i + 1) * 33].iter().map(|&v| kept(v, format, Precision::F32));
            let expected: Vec<f32> =
                [7.0; 33].into_iter().chain([9, 0, 9].into_iter().flat_map(row)).collect();
            assert_eq!(out.values(), expected);
            let mut gathered = tensor(&cpu, &[7.0; 3 * 33], 33);
            cpu.gather(&out, &[2, 0], 1, &mut gathered);
            let expected: Vec<f32> = [7.0; 33].into_iter().chain(row(0)).chain([7.0; 33]).collect();
            assert_eq!(gathered.values(), expected);
        }
    }
}

fn attention_tolerance(format: KvFormat) -> f32 {
    match format {
        KvFormat::F32 => tolerances::ATTENTION_F32,
        KvFormat::Bf16 => tolerances::ATTENTION_BF16,
        KvFormat::Q8 => tolerances::ATTENTION_Q8,
    }
}

/// Sequences of one model: for each the tokens already cached, and the new ones.
struct Sequences {
    heads: Heads,
    lengths: Vec<(usize, usize)>,
    /// `[past + new, (query + 2 key_value) dim]` per sequence.
    qkv: Vec<Vec<f32>>,
}

impl Sequences {
    fn random(heads: Heads, lengths: &[(usize, usize)]) -> Self {
        let mut random = Noise::new((heads.dim + lengths.len()) as u64);
        let cols = (heads.query + 2 * heads.key_value) * heads.dim;
        let qkv = lengths.iter().map(|(past, new)| random.values((past + new) * cols)).collect();
        let qkv: Vec<Vec<f32>> = qkv;
        // scores of some size, so that the softmax is not flat
        let larger = |v: Vec<f32>| v.iter().map(|v| v * 2.0).collect();
        Self { heads, lengths: lengths.to_vec(), qkv: qkv.into_iter().map(larger).collect() }
    }

    fn cols(&self) -> usize {
        (self.heads.query + 2 * self.heads.key_value) * self.heads.dim
    }

    /// Caches the past of all sequences, then runs their new tokens as one batch.
    fn run(&self, cpu: &Cpu, format: KvFormat) -> Vec<f32> {
        let blocks_of = |(past, new): &(usize, usize)| (past + new).div_ceil(KV_BLOCK_TOKENS);
        let total: usize = self.lengths.iter().map(blocks_of).sum();
        let layout = KvLayout { layers: 2, heads: self.heads, format };
        let mut pool = cpu.kv_pool(layout, total).unwrap();
        cpu.kv_grow(&mut pool, total).unwrap();
        // blocks of a sequence are neither in order nor together
        let mut free: Vec<u32> = (0..total as u32).rev().collect();
        let tables: Vec<Vec<u32>> = self
            .lengths
            .iter()
            .map(|l| (0..blocks_of(l)).map(|_| free.pop().unwrap()).rev().collect())
            .collect();
        let (mut rows, mut spans, mut row) = (Vec::new(), Vec::new(), 0);
        let mut batch = cpu.batch();
        for ((&(past, new), qkv), blocks) in self.lengths.iter().zip(&self.qkv).zip(&tables) {
            let (before, now) = qkv.split_at(past * self.cols());
            if past > 0 {
                let span = Span { rows: 0..past, past: 0, blocks };
                cpu.set_batch(&[span], &mut batch).unwrap();
                cpu.copy_kv(&tensor(cpu, before, self.cols()), 1, &batch, &mut pool);
            }
            rows.extend_from_slice(now);
            spans.push(Span { rows: row..row + new, past, blocks });
            row += new;
        }
        let qkv = tensor(cpu, &rows, self.cols());
        cpu.set_batch(&spans, &mut batch).unwrap();
        cpu.copy_kv(&qkv, 1, &batch, &mut pool);
        let mut out = cpu.tensor(row, self.heads.query * self.heads.dim).unwrap();
        cpu.attention_causal(&qkv, 1, &batch, &pool, &mut out);
        out.values().to_vec()
    }

    fn expected(&self) -> Vec<f32> {
        let mut out = Vec::new();
        for (&(past, new), qkv) in self.lengths.iter().zip(&self.qkv) {
            let cut = |first: usize, heads: usize| -> Vec<f32> {
                let dim = self.heads.dim;
                let part = |row: &[f32]| row[first * dim..(first + heads) * dim].to_vec();
                qkv.chunks_exact(self.cols()).flat_map(part).collect()
            };
            let Heads { query, key_value, .. } = self.heads;
            let (q, k, v) = (cut(0, query), cut(query, key_value), cut(query + key_value, key_value));
            for row in past..past + new {
                for head in 0..query {
                    let result = oracle::attention([&q, &k, &v], self.heads, (row, head), 0..row + 1);
                    out.extend(result.into_iter().map(|v| v as f32));
                }
            }
        }
        out
    }
}

fn sequences() -> Vec<Sequences> {
    let heads = |query, key_value, dim| Heads { query, key_value, dim };
    vec![
        Sequences::random(heads(2, 2, 96), &[(0, 1)]),
        Sequences::random(heads(4, 2, 16), &[(0, 70), (63, 2), (64, 1), (130, 67)]),
        Sequences::random(heads(2, 1, 64), &[(700, 1), (511, 3), (3, 1)]),
        Sequences::random(heads(1, 1, 96), &[(0, 600)]),
        Sequences::random(heads(2, 2, 80), &[(5, 49)]),
        Sequences::random(heads(1, 1, 128), &[(10, 7)]),
        // not a multiple of a register
        Sequences::random(heads(2, 2, 12), &[(0, 70), (63, 2)]),
    ]
}

#[test]
fn scalar_causal_attention_is_the_formula() {
    let scalar = scalar();
    for case in sequences() {
        let error = error(&case.run(&scalar, KvFormat::F32), &case.expected());
        assert!(error <= tolerances::ATTENTION_F32, "{:?} {:?}: {error}", case.heads, case.lengths);
    }
}

#[test]
fn causal_attention_agrees_with_scalar() {
    let scalar = scalar();
    for case in sequences() {
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let expected = case.run(&scalar, format);
            for cpu in levels() {
                let error = error(&case.run(&cpu, format), &expected);
                let name = format!("{} {format:?} {:?} {:?}", cpu.level(), case.heads, case.lengths);
                assert!(error <= attention_tolerance(format), "{name}: {error}");
            }
        }
    }
}

#[test]
fn a_prompt_may_be_cut_into_chunks() {
    let heads = Heads { query: 2, key_value: 2, dim: 96 };
    let whole = Sequences::random(heads, &[(0, 650)]);
    for cpu in levels() {
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let all = whole.run(&cpu, format);
            for past in [1, 64, 130, 649] {
                let mut rest = Sequences::random(heads, &[(0, 650)]);
                rest.lengths = vec![(past, 650 - past)];
                let found = rest.run(&cpu, format);
                assert_eq!(found[..], all[past * 192..], "{} {format:?} after {past} tokens", cpu.level());
            }
        }
    }
}

#[test]
fn full_attention_agrees_with_scalar_and_the_formula() {
    let scalar = scalar();
    for (group, groups, heads, dim) in
        [(577, 1, 2, 64), (5, 3, 2, 16), (64, 2, 1, 96), (193, 2, 3, 32), (9, 2, 1, 10)]
    {
        let mut random = Noise::new(group as u64);
        let cols = heads * dim;
        let parts = [0; 3].map(|_| random.values(group * groups * cols));
        let heads = Heads { query: heads, key_value: heads, dim };
        let run = |cpu: &Cpu, precision| {
            let [q, k, v] = parts.each_ref().map(|part| tensor(cpu, part, cols));
            let mut out = cpu.tensor(group * groups, cols).unwrap();
            cpu.attention_full([&q, &k, &v], FullAttention { group, heads, precision }, &mut out);
            out.values().to_vec()
        };
        let [q, k, v] = &parts;
        let rows = (0..group * groups).flat_map(|row| (0..heads.query).map(move |head| (row, head)));
        let one = |(row, head)| {
            oracle::attention([q, k, v], heads, (row, head), row / group * group..(row / group + 1) * group)
        };
        let formula: Vec<f32> = rows.flat_map(one).map(|v| v as f32).collect();
        let found = error(&run(&scalar, Precision::F32), &formula);
        assert!(found <= tolerances::ATTENTION_F32, "scalar {group} {heads:?}: {found}");
        for precision in PRECISIONS {
            let expected = run(&scalar, precision);
            let tolerance = if precision == Precision::F32 {
                tolerances::ATTENTION_F32
            } else {
                tolerances::ATTENTION_BF16
            };
            for cpu in levels() {
                let found = error(&run(&cpu, precision), &expected);
                assert!(found <= tolerance, "{} {precision:?} {group} {heads:?}: {found}", cpu.level());
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let heads = Heads { query: 1, key_value: 1, dim: 32 };
    let mut case = Sequences::random(heads, &[(0, 200)]);
    case.qkv[0].iter_mut().for_each(|v| *v *= 100.0);
    let expected = case.expected();
    for cpu in levels().into_iter().chain([scalar()]) {
        // the largest scores are some 50,000: f32 keeps them to 1/256, and e^(1/256) is 0.4 % off
        let error = error(&case.run(&cpu, KvFormat::F32), &expected);
        assert!(error < 0.01, "{}: {error}", cpu.level());
    }
}
