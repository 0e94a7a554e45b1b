//! Operations on single rows.

use super::dense::DENSE;
use super::{Subject, tensor, values};
use crate::testing::{Noise, error, kept, matrix, oracle, tolerances};
use crate::{Backend, Heads, Norm, Precision};

/// Norms equal their formulas.
pub fn norms<B: Backend>(subjects: &[Subject<B>]) {
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
        for Subject { name, backend } in subjects {
            let x = tensor(backend, &x, cols);
            let (weight, bias) = (backend.vector(&weight).unwrap(), backend.vector(&bias).unwrap());
            let mut out = backend.tensor(rows, cols).unwrap();
            backend.norm(&x, Norm::Rms(&weight, 1e-5), &mut out);
            assert!(error(&values(backend, &out), &rms) <= tolerances::ROW, "{} rms_norm {cols}", name);
            backend.norm(&x, Norm::Layer((&weight, &bias), 1e-5), &mut out);
            assert!(error(&values(backend, &out), &layer) <= tolerances::ROW, "{} layer_norm {cols}", name);
        }
    }
}

/// Residuals and rotations equal their formulas.
pub fn sums_and_rotations<B: Backend>(subjects: &[Subject<B>]) {
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
        for Subject { name, backend } in subjects {
            let mut x = tensor(backend, &qkv, cols);
            backend.rope(&tensor(backend, &cos_sin, dim), heads, &mut x);
            assert!(error(&values(backend, &x), &expected) <= tolerances::ROW, "{} rope {dim}", name);
            let mut x = tensor(backend, &qkv, cols);
            backend.add(&tensor(backend, &addend, cols), &mut x);
            assert_eq!(values(backend, &x), sums, "{} add {cols}", name);
        }
    }
}

/// Rows of tables and tensors are looked up.
pub fn lookups<B: Backend>(subjects: &[Subject<B>]) {
    let mut random = Noise::new(3);
    let table_values = random.values(10 * 33);
    for Subject { name, backend } in subjects {
        for format in DENSE {
            let table = backend.embedding(matrix(&table_values, 10, 33, format, Precision::F32)).unwrap();
            let mut out = tensor(backend, &[7.0; 4 * 33], 33);
            backend.embed(&table, &[9, 0, 9], 1, &mut out);
            let row = |i: usize| {
                table_values[i * 33..(i + 1) * 33].iter().map(|&v| kept(v, format, Precision::F32))
            };
            let expected: Vec<f32> =
                [7.0; 33].into_iter().chain([9, 0, 9].into_iter().flat_map(row)).collect();
            assert_eq!(values(backend, &out), expected, "{name} {format:?}");
            let mut gathered = tensor(backend, &[7.0; 3 * 33], 33);
            backend.gather(&out, &[2, 0], 1, &mut gathered);
            let expected: Vec<f32> = [7.0; 33].into_iter().chain(row(0)).chain([7.0; 33]).collect();
            assert_eq!(values(backend, &gathered), expected, "{name} {format:?}");
        }
    }
}

/// Values survive a change of shape that does not allocate.
pub fn shapes<B: Backend>(subjects: &[Subject<B>]) {
    let numbers: Vec<f32> = (0..12).map(|i| i as f32).collect();
    for Subject { name, backend } in subjects {
        let mut x = tensor(backend, &numbers, 3);
        for (rows, cols, kept) in [(2, 6, 12), (1, 12, 12), (1, 6, 6), (3, 4, 6)] {
            backend.reshape(&mut x, rows, cols).unwrap();
            assert_eq!(backend.shape(&x), (rows, cols), "{name}");
            assert_eq!(values(backend, &x)[..kept], numbers[..kept], "{name} as {rows} x {cols}");
        }
    }
}
