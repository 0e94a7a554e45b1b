//! Products with packed weights. Those of the CPU have the same bits at every level, which `bits` and `sweeps`
//! require. A device that adds in another order conforms by `sums` and `errors`.

use super::{Subject, tensor, values};
use crate::quant::{PackedShape, encode_panel};
use crate::testing::{Noise, difference, is_outlier, oracle, tolerances};
use crate::{Backend, Bytes, Epilogue, FeedForward, Format, MatrixSource, Norm, Precision};

const FORMATS: [Format; 2] = [Format::Q8, Format::Q4];

fn encode(shape: PackedShape, rows: &[f32]) -> Bytes {
    let mut bytes = vec![0; shape.bytes()];
    for (panel, out) in bytes.chunks_exact_mut(shape.panel_bytes()).enumerate() {
        let range = shape.panel_rows(panel);
        encode_panel(shape, panel, &rows[range.start * shape.k()..range.end * shape.k()], out);
    }
    Bytes::from(bytes)
}

/// A matrix in a format: as a source, and decoded.
struct Matrix {
    source: MatrixSource,
    decoded: Vec<f32>,
}

impl Matrix {
    fn random(format: Format, n: usize, k: usize, noise: &mut Noise) -> Self {
        let rows = noise.normal(n * k);
        let shape = PackedShape::new(format, n, k).unwrap();
        let bytes = encode(shape, &rows);
        let mut decoded = vec![0.0; n * k];
        for (panel, bytes) in bytes.chunks_exact(shape.panel_bytes()).enumerate() {
            let range = shape.panel_rows(panel);
            shape.decode_panel(panel, bytes, &mut decoded[range.start * k..range.end * k]);
        }
        let source = MatrixSource { bytes, format, precision: Precision::F32, n, k, bias: None };
        Self { source, decoded }
    }
}

fn product<B: Backend>(
    backend: &B,
    source: &MatrixSource,
    x: &[f32],
    epilogue: Epilogue,
    before: &[f32],
) -> Vec<f32> {
    let weight = backend.linear_weight(source.clone()).unwrap();
    let rows = x.len() / source.k;
    let cols = epilogue.out_cols(source.n);
    let input = tensor(backend, x, source.k);
    let mut output = backend.tensor(rows, cols).unwrap();
    if !before.is_empty() {
        backend.upload(before, 0, &mut output);
    }
    backend.linear(&input, &weight, epilogue, &mut output);
    values(backend, &output)
}

/// Numbers of rows of x: awkward sizes around the tile (6) and the chunks (18 and 36), and beyond a sweep's first
/// chunks.
const ROWS: [usize; 12] = [1, 2, 5, 6, 7, 12, 18, 19, 37, 40, 70, 130];
/// Shapes `(n, k)` around the panel (64) and the group (128).
const SHAPES: [(usize, usize); 5] = [(64, 128), (1, 1), (70, 130), (200, 588), (130, 1024)];

/// Every subject gives rows, alone or with others, the bits of the first subject's single rows.
pub fn bits<B: Backend>(subjects: &[Subject<B>]) {
    let mut noise = Noise::new(1);
    for format in FORMATS {
        for (n, k) in SHAPES {
            let matrix = Matrix::random(format, n, k, &mut noise);
            let x = noise.with_outliers(130, k);
            let singles: Vec<f32> = x
                .chunks(k)
                .flat_map(|row| product(&subjects[0].backend, &matrix.source, row, Epilogue::Store, &[]))
                .collect();
            for Subject { name, backend } in subjects {
                for rows in ROWS {
                    let found = product(backend, &matrix.source, &x[..rows * k], Epilogue::Store, &[]);
                    assert!(found == singles[..rows * n], "{format:?} [{n}, {k}] {rows} rows {name}");
                }
            }
        }
    }
}

/// Covers as many rows as several sweeps of packed activations take: 4 MB are some 410 rows of 8,192 values.
pub fn sweeps<B: Backend>(subjects: &[Subject<B>]) {
    let (n, k, rows, mut noise) = (70, 8192, 450, Noise::new(6));
    let x = noise.with_outliers(rows, k);
    for format in FORMATS {
        let matrix = Matrix::random(format, n, k, &mut noise);
        for Subject { name, backend } in subjects {
            let found = product(backend, &matrix.source, &x, Epilogue::Store, &[]);
            for row in [0, 127, 128, 413, 414, 431, 432, 449] {
                let one = product(backend, &matrix.source, &x[row * k..(row + 1) * k], Epilogue::Store, &[]);
                assert!(found[row * n..(row + 1) * n] == one, "{format:?} row {row} {:?}", name);
            }
        }
    }
}

/// Rows of 97 groups are so long that no workgroup holds the sums of their groups at once, whether it computes one
/// row, two or four. A row has the same bits alone as among many, and is close to the definition's.
pub fn long_rows<B: Backend, D: Backend>(definition: &D, subjects: &[Subject<B>]) {
    let (n, k, many, mut noise) = (18, 12_416, 20, Noise::new(11));
    let x = noise.with_outliers(many, k);
    for format in FORMATS {
        let matrix = Matrix::random(format, n, k, &mut noise);
        let right = product(definition, &matrix.source, &x, Epilogue::Store, &[]);
        let largest = right.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
        for Subject { name, backend } in subjects {
            let of_many = product(backend, &matrix.source, &x, Epilogue::Store, &[]);
            for (i, (found, right)) in of_many.iter().zip(&right).enumerate() {
                let bound = tolerances::PACKED_LONG * largest;
                assert!((found - right).abs() <= bound, "{name} {format:?} value {i}: {found}, not {right}");
            }
            for rows in [1, 2, 3, 16] {
                let found = product(backend, &matrix.source, &x[..rows * k], Epilogue::Store, &[]);
                assert!(found == of_many[..rows * n], "{name} {format:?}, {rows} rows");
            }
        }
    }
}

/// Returns a dense matrix of random values.
fn plain(n: usize, k: usize, noise: &mut Noise) -> MatrixSource {
    let values = bytemuck::cast_slice::<f32, u8>(&noise.normal(n * k)).to_vec();
    let (format, precision) = (Format::F32, Precision::F32);
    MatrixSource { bytes: Bytes::from(values), format, precision, n, k, bias: None }
}

/// Products of normed rows equal those of rows that were normed in a separate step.
pub fn normed_products<B: Backend>(subjects: &[Subject<B>]) {
    const K: usize = 130;
    let mut noise = Noise::new(9);
    let packed = |format, n, noise: &mut Noise| Matrix::random(format, n, K, noise).source;
    let packed = [packed(Format::Q8, 70, &mut noise), packed(Format::Q4, 3, &mut noise)];
    let mixed = [packed[0].clone(), plain(3, K, &mut noise)];
    let (weight, bias) = (noise.normal(K), noise.normal(K));
    for rows in [1, 7, 50] {
        let x = noise.normal(rows * K);
        for (Subject { name, backend }, sources) in subjects.iter().flat_map(|s| [(s, &packed), (s, &mixed)])
        {
            let parts = [&weight, &bias].map(|part| backend.vector(part).unwrap());
            let norm = Norm::Layer((&parts[0], &parts[1]), 1e-5);
            let x = tensor(backend, &x, K);
            let mut normed = backend.tensor(rows, K).unwrap();
            backend.norm(&x, norm, &mut normed);
            let weights = sources.clone().map(|source| backend.linear_weight(source).unwrap());
            let mut outputs = [70, 3].map(|n| backend.tensor(rows, n).unwrap());
            let mut products: Vec<_> = weights.iter().zip(&mut outputs).collect();
            let mut between = backend.tensor(0, 1).unwrap();
            backend.normed_linear(&x, norm, &mut products, &mut between).unwrap();
            for (source, output) in sources.iter().zip(&outputs) {
                let expected = product(backend, source, &values(backend, &normed), Epilogue::Store, &[]);
                assert_eq!(values(backend, output), expected, "{name}, {rows} rows");
            }
        }
    }
}

/// A feed-forward block equals its separate steps. The numbers of rows are those of a decode step and of one, three
/// and many tiles; the columns between the products fill groups and panels, or do not.
pub fn feed_forward<B: Backend>(subjects: &[Subject<B>]) {
    const K: usize = 96;
    let mut noise = Noise::new(10);
    for (hidden, format, epilogue) in [
        (256, Format::Q8, Epilogue::QuickGelu),
        (256, Format::Q4, Epilogue::SiluMul),
        (200, Format::Q4, Epilogue::QuickGelu),
        (200, Format::Q8, Epilogue::SiluMul),
        (5, Format::Q8, Epilogue::Gelu),
    ] {
        let n = if epilogue.is_gated() { 2 * hidden } else { hidden };
        let packed = Matrix::random(format, n, K, &mut noise).source;
        let first = MatrixSource { bias: Some(noise.normal(n)), ..packed };
        let second = Matrix::random(format, K, hidden, &mut noise).source;
        let dense = plain(K, hidden, &mut noise);
        let weight = noise.normal(K);
        for rows in [1, 6, 19, 75] {
            let before = noise.normal(rows * K);
            for (Subject { name, backend }, second) in
                subjects.iter().flat_map(|s| [(s, &second), (s, &dense)])
            {
                let weight = backend.vector(&weight).unwrap();
                let norm = Norm::Rms(&weight, 1e-5);
                let mut x = tensor(backend, &before, K);
                let mut normed = backend.tensor(rows, K).unwrap();
                backend.norm(&x, norm, &mut normed);
                let between = product(backend, &first, &values(backend, &normed), epilogue, &[]);
                let expected = product(backend, second, &between, Epilogue::Add, &before);
                let weights = [&first, second].map(|source| backend.linear_weight(source.clone()).unwrap());
                let block = FeedForward { first: &weights[0], epilogue, hidden, second: &weights[1] };
                let mut room = [(); 2].map(|()| backend.tensor(0, 1).unwrap());
                let [a, b] = &mut room;
                backend.feed_forward(&mut x, norm, block, [a, b]).unwrap();
                assert_eq!(
                    values(backend, &x),
                    expected,
                    "{:?} {format:?} {epilogue:?} {rows} x {hidden}",
                    name
                );
            }
        }
    }
}

/// Sums equal those of the decoded weights.
pub fn sums<B: Backend>(subjects: &[Subject<B>]) {
    let mut noise = Noise::new(2);
    for format in FORMATS {
        for (n, k) in SHAPES {
            let matrix = Matrix::random(format, n, k, &mut noise);
            // integers up to 127, with 127 in every group: quantized without loss
            let x: Vec<f32> =
                (0..3 * k).map(|i| if i % k % 64 == 0 { 127.0 } else { (i % 101) as f32 - 50.0 }).collect();
            for Subject { name, backend } in subjects {
                let found = product(backend, &matrix.source, &x, Epilogue::Store, &[]);
                for (i, &found) in found.iter().enumerate() {
                    let (row, w) = (&x[i / n * k..][..k], &matrix.decoded[i % n * k..][..k]);
                    let terms = row.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let (sum, magnitude) = terms.fold((0.0, 0.0), |(s, m), t| (s + t, m + t.abs()));
                    let bound = magnitude * tolerances::PACKED_SUM + 1e-12;
                    assert!(
                        (f64::from(found) - sum).abs() <= bound,
                        "{name} {format:?} [{n}, {k}] {found} {sum}"
                    );
                }
            }
        }
    }
}

/// Returns `x Wᵀ` in f64 over the channels that `of` selects.
fn exact(x: &[f32], weights: &[f32], k: usize, of: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut out = Vec::new();
    for row in x.chunks(k) {
        for w in weights.chunks(k) {
            out.push((0..k).filter(|&i| of(i)).map(|i| f64::from(row[i]) * f64::from(w[i])).sum());
        }
    }
    out
}

/// The error compared with f32 stays within bounds stated beforehand, including outlier channels.
pub fn errors<B: Backend>(subjects: &[Subject<B>]) {
    let (n, k, rows) = (192, 3072, 8);
    for (outliers, bounds) in [(false, tolerances::PACKED_PLAIN), (true, tolerances::PACKED_OUTLIERS)] {
        for (format, bound) in FORMATS.into_iter().zip(bounds) {
            let mut noise = Noise::new(3);
            let weights = noise.normal(n * k);
            let x = if outliers { noise.with_outliers(rows, k) } else { noise.normal(rows * k) };
            let bytes = encode(PackedShape::new(format, n, k).unwrap(), &weights);
            let source = MatrixSource { bytes, format, precision: Precision::F32, n, k, bias: None };
            let whole = exact(&x, &weights, k, |_| true);
            let ordinary = exact(&x, &weights, k, |i| !outliers || !is_outlier(i, k));
            let size = ordinary.iter().map(|v| v * v).sum::<f64>().sqrt();
            for Subject { name, backend } in subjects {
                let found = product(backend, &source, &x, Epilogue::Store, &[]);
                let error = difference(&found, &whole) / size;
                eprintln!("{format:?} outliers {outliers} {:?}: {error:.5} of {bound}", name);
                assert!(error < bound, "{format:?} outliers {outliers} {:?}: {error}", name);
            }
        }
    }
}

/// Epilogues and bias are applied to the product.
pub fn epilogues<B: Backend>(subjects: &[Subject<B>]) {
    let mut noise = Noise::new(4);
    for format in FORMATS {
        for (n, k) in [(128, 128), (200, 130)] {
            let mut matrix = Matrix::random(format, n, k, &mut noise);
            for rows in [1, 7, 20] {
                let (x, before) = (noise.normal(rows * k), noise.normal(rows * n));
                for Subject { name, backend } in subjects {
                    matrix.source.bias = None;
                    let y = product(backend, &matrix.source, &x, Epilogue::Store, &[]);
                    let bias = noise.normal(n);
                    matrix.source.bias = Some(bias.clone());
                    for epilogue in [
                        Epilogue::Store,
                        Epilogue::Add,
                        Epilogue::Gelu,
                        Epilogue::QuickGelu,
                        Epilogue::SiluMul,
                    ] {
                        let cols = epilogue.out_cols(n);
                        let before = &before[..rows * cols];
                        let found = product(backend, &matrix.source, &x, epilogue, before);
                        for (i, &found) in found.iter().enumerate() {
                            let v = |col: usize| f64::from(y[i / cols * n + col]) + f64::from(bias[col]);
                            let (col, before) = (i % cols, f64::from(before[i]));
                            let expected = oracle::epilogue(epilogue, v(col), before, || v(n / 2 + col));
                            let error = (f64::from(found) - expected).abs();
                            assert!(
                                error <= tolerances::EPILOGUE * expected.abs().max(1.0),
                                "{name} {epilogue:?} {found} {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// A non-finite value shows only in its row, and zeros stay zero.
pub fn broken_activations<B: Backend>(subjects: &[Subject<B>]) {
    let mut noise = Noise::new(5);
    for format in FORMATS {
        let matrix = Matrix::random(format, 64, 256, &mut noise);
        for Subject { name, backend } in subjects {
            assert!(
                product(backend, &matrix.source, &[0.0; 256], Epilogue::Store, &[]).iter().all(|&v| v == 0.0)
            );
            for broken in [f32::NAN, f32::INFINITY] {
                let mut x = noise.normal(512);
                x[130] = broken;
                let y = product(backend, &matrix.source, &x, Epilogue::Store, &[]);
                assert!(y[..64].iter().all(|v| v.is_nan()), "{name}: {broken} is not hidden");
                assert!(y[64..].iter().all(|v| v.is_finite()), "{name}: {broken} stays in its row");
            }
        }
    }
}

/// Matrices of impossible sizes are refused, and so are tables in packed formats.
pub fn sizes<B: Backend>(subject: &Subject<B>) {
    let backend = &subject.backend;
    for (format, n, k, bytes) in
        [(Format::Q8, 64, 128, 8319), (Format::Q4, 65, 128, 4352), (Format::Q8, 0, 5, 0)]
    {
        let bytes = Bytes::from(vec![0; bytes]);
        let source = MatrixSource { bytes, format, precision: Precision::F32, n, k, bias: None };
        assert!(backend.linear_weight(source).is_err(), "{format:?} [{n}, {k}]");
    }
    let packed = Matrix::random(Format::Q8, 64, 128, &mut Noise::new(7)).source;
    assert!(backend.embedding(packed).is_err(), "rows of panels cannot be looked up");
}
