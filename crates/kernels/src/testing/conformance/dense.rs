//! Products with dense weights.

use super::{Subject, tensor, values};
use crate::testing::{Noise, error, kept, matrix, oracle, tolerances};
use crate::{Backend, Epilogue, Format, Precision};

pub(super) const DENSE: [Format; 3] = [Format::F32, Format::F16, Format::Bf16];
pub(super) const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];
const EPILOGUES: [Epilogue; 5] =
    [Epilogue::Store, Epilogue::Add, Epilogue::Gelu, Epilogue::QuickGelu, Epilogue::SiluMul];

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

    fn run<B: Backend>(
        &self,
        backend: &B,
        format: Format,
        precision: Precision,
        epilogue: Epilogue,
    ) -> Vec<f32> {
        let mut source = matrix(&self.w, self.n, self.k, format, precision);
        source.bias = Some(self.bias.clone());
        let weight = backend.linear_weight(source).unwrap();
        let m = self.x.len() / self.k;
        let cols = epilogue.out_cols(self.n);
        let mut out = tensor(backend, &self.before[..m * cols], cols);
        backend.linear(&tensor(backend, &self.x, self.k), &weight, epilogue, &mut out);
        values(backend, &out)
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

/// A product with dense weights equals its formula, in f64.
pub fn is_the_formula<B: Backend>(subject: &Subject<B>) {
    for (m, n, k) in [(1, 64, 96), (3, 100, 588), (17, 34, 31), (2, 6, 8192)] {
        let case = Linear::random(m, n, k);
        for format in DENSE {
            for precision in PRECISIONS {
                for epilogue in EPILOGUES {
                    let found = case.run(&subject.backend, format, precision, epilogue);
                    let error = error(&found, &case.expected(format, precision, epilogue));
                    let name = format!(
                        "{} [{m}, {k}] x [{n}, {k}] {format:?} {precision:?} {epilogue:?}",
                        subject.name
                    );
                    assert!(error <= linear_tolerance(precision), "{name}: {error}");
                }
            }
        }
    }
}

/// Rows 1 to 17 cover the change from streamed to packed products. 588 is the patch embedding, 31 has half a pair,
/// 3100 crosses the blocks of K. The widths leave incomplete panels: 70 leaves 6 rows, one and a half of the blocks
/// that are streamed.
const LINEAR_SHAPES: [(usize, usize, usize); 15] = [
    (1, 64, 96),
    (1, 258, 3100),
    (2, 100, 588),
    (3, 66, 31),
    (4, 192, 256),
    (5, 2, 33),
    (6, 70, 48),
    (7, 130, 96),
    (16, 128, 588),
    (17, 128, 588),
    (18, 66, 31),
    (23, 100, 3100),
    (33, 192, 64),
    (577, 96, 64),
    (301, 70, 40),
];

/// A product with dense weights agrees with that of `reference`, up to the order of its sums.
pub fn agrees<R: Backend, B: Backend>(reference: &R, subjects: &[Subject<B>]) {
    for (m, n, k) in LINEAR_SHAPES {
        let case = Linear::random(m, n, k);
        for format in DENSE {
            for precision in PRECISIONS {
                for epilogue in EPILOGUES {
                    let expected = case.run(reference, format, precision, epilogue);
                    for Subject { name, backend } in subjects {
                        let error = error(&case.run(backend, format, precision, epilogue), &expected);
                        let name = format!("{name} [{m}, {k}] x [{n}, {k}] {format:?}");
                        let name = format!("{name} {precision:?} {epilogue:?}");
                        assert!(error <= linear_tolerance(precision), "{name}: {error}");
                    }
                }
            }
        }
    }
}

/// Among few rows and among many, a row's bits do not depend on the other rows, nor on what differs between the two
/// subjects, such as their threads.
pub fn rows_know_no_company<B: Backend>(one: &Subject<B>, three: &Subject<B>) {
    for (few, many, k) in [(1, 16, 1600), (17, 61, 1600), (1, 16, 131), (17, 61, 131)] {
        let case = Linear::random(many, 192, k);
        let mut part = Linear::random(many, 192, k);
        part.x.truncate(few * k);
        part.before.truncate(few * part.n);
        for (format, precision) in DENSE.into_iter().flat_map(|f| PRECISIONS.map(|p| (f, p))) {
            let all = case.run(&three.backend, format, precision, Epilogue::Add);
            let some = part.run(&one.backend, format, precision, Epilogue::Add);
            let name = format!("{} {format:?} {precision:?}", one.name);
            assert_eq!(some[..], all[..few * 192], "{name} {few} of {many} rows of {k}");
        }
    }
}
