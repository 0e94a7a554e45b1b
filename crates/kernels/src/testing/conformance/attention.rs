//! Attention over the cache and within image tiles.

use super::dense::PRECISIONS;
use super::{Subject, tensor, values};
use crate::testing::{Noise, error, oracle, tolerances};
use crate::{Backend, FullAttention, Heads, KV_BLOCK_TOKENS, KvFormat, KvLayout, Precision, Rotation, Span};

fn attention_tolerance(format: KvFormat) -> f32 {
    match format {
        KvFormat::F32 => tolerances::ATTENTION_F32,
        KvFormat::Bf16 => tolerances::ATTENTION_BF16,
        KvFormat::Q8 => tolerances::ATTENTION_Q8,
    }
}

/// Sequences of one model: for each, the number of tokens already cached and of new ones.
#[derive(Clone)]
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
        // large enough scores, so that the softmax is not flat
        let larger = |v: Vec<f32>| v.iter().map(|v| v * 2.0).collect();
        Self { heads, lengths: lengths.to_vec(), qkv: qkv.into_iter().map(larger).collect() }
    }

    fn cols(&self) -> usize {
        (self.heads.query + 2 * self.heads.key_value) * self.heads.dim
    }

    /// Caches the past of all sequences, then runs their new tokens as one batch.
    fn run<B: Backend>(&self, backend: &B, format: KvFormat) -> Vec<f32> {
        self.run_after(backend, format, None)
    }

    /// Runs the sequences in blocks that other sequences have used and, if `left` is given, filled with that value.
    fn run_after<B: Backend>(&self, backend: &B, format: KvFormat, left: Option<f32>) -> Vec<f32> {
        let blocks_of = |(past, new): &(usize, usize)| (past + new).div_ceil(KV_BLOCK_TOKENS);
        let total: usize = self.lengths.iter().map(blocks_of).sum();
        let layout = KvLayout { layers: 2, heads: self.heads, format };
        let mut pool = backend.kv_pool(layout, total).unwrap();
        backend.kv_grow(&mut pool, total).unwrap();
        // blocks of a sequence are neither in order nor contiguous
        let mut free: Vec<u32> = (0..total as u32).rev().collect();
        let tables: Vec<Vec<u32>> = self
            .lengths
            .iter()
            .map(|l| (0..blocks_of(l)).map(|_| free.pop().unwrap()).rev().collect())
            .collect();
        let (mut rows, mut spans, mut row) = (Vec::new(), Vec::new(), 0);
        let mut batch = backend.batch();
        if let Some(left) = left {
            let tokens = total * KV_BLOCK_TOKENS;
            let blocks: Vec<u32> = (0..total as u32).collect();
            backend.set_batch(&[Span { rows: 0..tokens, past: 0, blocks: &blocks }], &mut batch).unwrap();
            let full = vec![left; tokens * self.cols()];
            backend.copy_kv(&tensor(backend, &full, self.cols()), 1, &batch, &mut pool);
        }
        for ((&(past, new), qkv), blocks) in self.lengths.iter().zip(&self.qkv).zip(&tables) {
            let (before, now) = qkv.split_at(past * self.cols());
            if past > 0 {
                let span = Span { rows: 0..past, past: 0, blocks };
                backend.set_batch(&[span], &mut batch).unwrap();
                backend.copy_kv(&tensor(backend, before, self.cols()), 1, &batch, &mut pool);
            }
            rows.extend_from_slice(now);
            spans.push(Span { rows: row..row + new, past, blocks });
            row += new;
        }
        let qkv = tensor(backend, &rows, self.cols());
        backend.set_batch(&spans, &mut batch).unwrap();
        backend.copy_kv(&qkv, 1, &batch, &mut pool);
        let mut out = backend.tensor(row, self.heads.query * self.heads.dim).unwrap();
        backend.attention_causal(&qkv, 1, &batch, &pool, &mut out);
        values(backend, &out)
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
                    let result = oracle::attention([&q, &k, &v], self.heads, row, head, 0..row + 1);
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
        // several chunks of keys, one that begins with a row's own key, and in the same batch a sequence with a
        // single chunk
        Sequences::random(heads(2, 1, 32), &[(4600, 1), (2048, 1), (2047, 1), (4095, 3), (9, 1)]),
        // not a multiple of a register
        Sequences::random(heads(2, 2, 12), &[(0, 70), (63, 2)]),
    ]
}

/// Runs two sequences in one batch, rotated and stored in one call or in separate steps. Returns their rows, and the
/// attention over them.
fn stored<B: Backend>(backend: &B, layout: KvLayout, at_a_time: bool) -> [Vec<f32>; 2] {
    let heads = layout.heads;
    let (cols, rows, mut random) = ((heads.query + 2 * heads.key_value) * heads.dim, 73, Noise::new(12));
    let mut pool = backend.kv_pool(layout, 3).unwrap();
    backend.kv_grow(&mut pool, 3).unwrap();
    let mut batch = backend.batch();
    let spans =
        [Span { rows: 0..70, past: 0, blocks: &[2, 0] }, Span { rows: 70..rows, past: 0, blocks: &[1] }];
    backend.set_batch(&spans, &mut batch).unwrap();
    let mut qkv = tensor(backend, &random.normal(rows * cols), cols);
    let cos_sin = &tensor(backend, &random.normal(rows * heads.dim), heads.dim);
    if at_a_time {
        backend.rope_and_copy_kv(Rotation { cos_sin, heads }, &mut qkv, 1, &batch, &mut pool);
    } else {
        backend.rope(cos_sin, heads, &mut qkv);
        backend.copy_kv(&qkv, 1, &batch, &mut pool);
    }
    let mut out = backend.tensor(rows, heads.query * heads.dim).unwrap();
    backend.attention_causal(&qkv, 1, &batch, &pool, &mut out);
    [values(backend, &qkv), values(backend, &out)]
}

/// Rotating and storing rows in one call gives the results of the two steps.
pub fn rotated_rows_are_stored<B: Backend>(subjects: &[Subject<B>]) {
    for Subject { name, backend } in subjects {
        for (query, key_value, dim) in [(2, 2, 96), (4, 2, 16), (2, 1, 12), (2, 1, 150)] {
            for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
                let layout = KvLayout { layers: 2, heads: Heads { query, key_value, dim }, format };
                let [found, expected] = [true, false].map(|at_a_time| stored(backend, layout, at_a_time));
                assert!(found == expected, "{name} {layout:?}");
            }
        }
    }
}

/// Causal attention in f32 equals its formula.
pub fn causal_is_the_formula<B: Backend>(subject: &Subject<B>) {
    for case in sequences() {
        let error = error(&case.run(&subject.backend, KvFormat::F32), &case.expected());
        assert!(
            error <= tolerances::ATTENTION_F32,
            "{} {:?} {:?}: {error}",
            subject.name,
            case.heads,
            case.lengths
        );
    }
}

/// Causal attention agrees with that of `reference` in every format of keys and values.
pub fn causal_agrees<R: Backend, B: Backend>(reference: &R, subjects: &[Subject<B>]) {
    for case in sequences() {
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let expected = case.run(reference, format);
            for Subject { name, backend } in subjects {
                let error = error(&case.run(backend, format), &expected);
                let name = format!("{name} {format:?} {:?} {:?}", case.heads, case.lengths);
                assert!(error <= attention_tolerance(format), "{name}: {error}");
            }
        }
    }
}

/// The rows of a prompt have the same bits however the prompt is cut.
pub fn prompts_may_be_cut<B: Backend>(subjects: &[Subject<B>]) {
    let heads = Heads { query: 2, key_value: 2, dim: 96 };
    let whole = Sequences::random(heads, &[(0, 650)]);
    for Subject { name, backend } in subjects {
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let all = whole.run(backend, format);
            for past in [1, 64, 130, 649] {
                let mut rest = Sequences::random(heads, &[(0, 650)]);
                rest.lengths = vec![(past, 650 - past)];
                let found = rest.run(backend, format);
                assert_eq!(found[..], all[past * 192..], "{} {format:?} after {past} tokens", name);
            }
            // rows that see several chunks of keys, in one batch and alone
            let mut rest = Sequences::random(heads, &[(0, 4099)]);
            rest.lengths = vec![(4000, 99)];
            let together = rest.run(backend, format);
            for past in [4095, 4096, 4098] {
                rest.lengths = vec![(past, 4099 - past)];
                let found = rest.run(backend, format);
                assert_eq!(
                    found[..],
                    together[(past - 4000) * 192..],
                    "{name} {format:?} after {past} tokens"
                );
            }
        }
    }
}

/// What a block held before, including infinities, does not change any bit of its present owner's results.
pub fn blocks_are_left_clean<B: Backend>(subjects: &[Subject<B>]) {
    for case in sequences() {
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            for Subject { name, backend } in subjects {
                let expected = case.run(backend, format);
                for left in [f32::NAN, f32::INFINITY] {
                    let found = case.run_after(backend, format, Some(left));
                    assert!(
                        found == expected,
                        "{name} {format:?} {:?} {:?} after {left}",
                        case.heads,
                        case.lengths
                    );
                }
            }
        }
    }
}

/// A part of a token's row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Query,
    Key,
    Value,
}

/// One non-finite value of a token.
#[derive(Clone, Copy, Debug)]
struct Broken {
    part: Part,
    value: f32,
    sequence: usize,
    token: usize,
}

impl Broken {
    /// Returns the head the value is in, which is the last one, and its position there.
    fn place(self, heads: Heads) -> (usize, usize) {
        let count = if self.part == Part::Query { heads.query } else { heads.key_value };
        (count - 1, heads.dim / 2 + 1)
    }

    fn put(self, case: &mut Sequences) {
        let Heads { query, key_value, dim } = case.heads;
        let before = match self.part {
            Part::Query => 0,
            Part::Key => query,
            Part::Value => query + key_value,
        };
        let (head, at) = self.place(case.heads);
        let cols = case.cols();
        case.qkv[self.sequence][self.token * cols + (before + head) * dim + at] = self.value;
    }

    /// Returns whether the value shows in a column of a row, counted through all heads.
    fn shows(self, heads: Heads, format: KvFormat, token: usize, column: usize) -> bool {
        let (head, at) = (column / heads.dim, column % heads.dim);
        let (broken_head, broken_at) = self.place(heads);
        let kv_head = head / (heads.query / heads.key_value);
        match self.part {
            Part::Query => token == self.token && head == broken_head,
            Part::Key => token >= self.token && kv_head == broken_head,
            // 8-bit values of a row share a scale
            Part::Value => {
                let shares = format == KvFormat::Q8 || at == broken_at;
                token >= self.token && kv_head == broken_head && shares
            }
        }
    }
}

/// A non-finite value in a query, a key or a value shows in the rows that see it, and changes no bit of the others.
pub fn broken_values<B: Backend>(subjects: &[Subject<B>]) {
    let heads = |query, key_value, dim| Heads { query, key_value, dim };
    // sequences, and their tokens with a non-finite value: seen by many rows, by few, by the last alone; and in a
    // block that is already partly filled
    for (heads, lengths, tokens) in [
        (
            heads(4, 2, 16),
            &[(0, 70), (63, 2), (30, 1)][..],
            &[(0, 0), (0, 37), (0, 69), (1, 3), (1, 64), (2, 30)][..],
        ),
        (heads(2, 2, 96), &[(500, 90), (9, 1)], &[(0, 20), (0, 505), (0, 589), (1, 9)]),
        // several chunks of keys
        (heads(2, 1, 32), &[(4600, 1), (4095, 3)], &[(0, 5), (0, 2050), (0, 4600), (1, 4095), (1, 4096)]),
        // not a multiple of a register
        (heads(2, 2, 12), &[(0, 70), (63, 2)], &[(0, 37), (1, 64)]),
    ] {
        let clean = Sequences::random(heads, lengths);
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            for Subject { name, backend } in subjects {
                let expected = clean.run(backend, format);
                for &(sequence, token) in tokens {
                    for (part, value) in [
                        (Part::Query, f32::NAN),
                        (Part::Key, f32::NAN),
                        (Part::Value, f32::NAN),
                        (Part::Value, f32::INFINITY),
                    ] {
                        let broken = Broken { part, value, sequence, token };
                        let mut case = clean.clone();
                        broken.put(&mut case);
                        let name = format!("{name} {format:?} {heads:?} {broken:?}");
                        assert_shows(&case, broken, format, &case.run(backend, format), &expected, &name);
                    }
                }
            }
        }
    }
}

/// Asserts that results equal those of the clean case, except where the non-finite value shows.
fn assert_shows(
    case: &Sequences,
    broken: Broken,
    format: KvFormat,
    found: &[f32],
    expected: &[f32],
    name: &str,
) {
    let Heads { query, dim, .. } = case.heads;
    let rows = case.lengths.iter().enumerate();
    let rows = rows.flat_map(|(i, (past, new))| (*past..past + new).map(move |token| (i, token)));
    for (row, (sequence, token)) in rows.enumerate() {
        for column in 0..query * dim {
            let (found, expected) = (found[row * query * dim + column], expected[row * query * dim + column]);
            if sequence == broken.sequence && broken.shows(case.heads, format, token, column) {
                assert!(!found.is_finite(), "{name}: token {token}, column {column} hides it");
            } else {
                assert!(
                    found == expected,
                    "{name}: token {token}, column {column} is {found}, not {expected}"
                );
            }
        }
    }
}

/// Rows have the same bits for any number of threads and any split of the keys among them.
pub fn threads_do_not_show<B: Backend>(subjects: &[Subject<B>]) {
    let lengths: [&[(usize, usize)]; 3] =
        [&[(4300, 1)], &[(0, 200)], &[(2100, 1), (2040, 20), (4100, 1), (3, 1)]];
    for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
        for (query, key_value, dim) in [(4, 2, 32), (8, 8, 16)] {
            for lengths in lengths {
                let case = Sequences::random(Heads { query, key_value, dim }, lengths);
                let expected = case.run(&subjects[0].backend, format);
                for Subject { name, backend } in &subjects[1..] {
                    assert_eq!(case.run(backend, format), expected, "{name} {format:?} {lengths:?}");
                }
            }
        }
    }
}

/// Computes full attention of three tensors.
fn full<B: Backend>(backend: &B, parts: &[Vec<f32>; 3], shape: FullAttention) -> Vec<f32> {
    let cols = shape.heads.query * shape.heads.dim;
    let [q, k, v] = parts.each_ref().map(|part| tensor(backend, part, cols));
    let mut out = backend.tensor(parts[0].len() / cols, cols).unwrap();
    backend.attention_full([&q, &k, &v], shape, &mut out);
    values(backend, &out)
}

/// Full attention agrees with that of `reference`, and in f32 with its formula.
pub fn full_agrees<R: Backend, B: Backend>(reference: &R, subjects: &[Subject<B>]) {
    // the last block of keys ends at each register of a panel, and within a register
    let last_blocks = [(513, 1, 1, 80), (66, 1, 2, 128), (47, 2, 1, 48), (32, 1, 1, 96), (63, 1, 1, 64)];
    for (group, groups, heads, dim) in
        [(577, 1, 2, 64), (5, 3, 2, 16), (64, 2, 1, 96), (193, 2, 3, 32), (9, 2, 1, 10)]
            .into_iter()
            .chain(last_blocks)
    {
        let mut random = Noise::new(group as u64);
        let cols = heads * dim;
        let parts = [0; 3].map(|_| random.values(group * groups * cols));
        let heads = Heads { query: heads, key_value: heads, dim };
        let [q, k, v] = &parts;
        let rows = (0..group * groups).flat_map(|row| (0..heads.query).map(move |head| (row, head)));
        let one = |(row, head)| {
            oracle::attention([q, k, v], heads, row, head, row / group * group..(row / group + 1) * group)
        };
        let formula: Vec<f32> = rows.flat_map(one).map(|v| v as f32).collect();
        let shape = |precision| FullAttention { group, heads, precision };
        let found = error(&full(reference, &parts, shape(Precision::F32)), &formula);
        assert!(found <= tolerances::ATTENTION_F32, "reference {group} {heads:?}: {found}");
        for precision in PRECISIONS {
            let expected = full(reference, &parts, shape(precision));
            let tolerance = if precision == Precision::F32 {
                tolerances::ATTENTION_F32
            } else {
                tolerances::ATTENTION_BF16
            };
            for Subject { name, backend } in subjects {
                let found = error(&full(backend, &parts, shape(precision)), &expected);
                assert!(found <= tolerance, "{} {precision:?} {group} {heads:?}: {found}", name);
            }
        }
    }
}

/// Scores of tens of thousands, and scores beyond the precision of f32, do not overflow the softmax.
pub fn large_scores<B: Backend>(subjects: &[Subject<B>]) {
    let heads = Heads { query: 1, key_value: 1, dim: 32 };
    let mut case = Sequences::random(heads, &[(0, 200)]);
    case.qkv[0].iter_mut().for_each(|v| *v *= 100.0);
    let expected = case.expected();
    for Subject { name, backend } in subjects {
        // the largest scores are some 50,000: f32 keeps them to 1/256, and e^(1/256) is 0.4 % off
        let error = error(&case.run(backend, KvFormat::F32), &expected);
        assert!(error < 0.01, "{}: {error}", name);
    }
    // 8-bit integers times a power of two, which every format stores exactly; their scores are exact in f32
    let mut integers = Sequences::random(heads, &[(0, 200), (130, 1), (700, 1)]);
    for (i, v) in integers.qkv.iter_mut().flat_map(|qkv| qkv.iter_mut().enumerate()) {
        *v = if i % heads.dim == 0 { 127.0 } else { (*v * 63.0).round() };
    }
    // the largest scores are some 20,000 times the square of the factor
    for factor in [1.0, 1024.0, 16_777_216.0] {
        let mut case = integers.clone();
        case.qkv.iter_mut().flatten().for_each(|v| *v *= factor);
        let expected = case.expected();
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            for Subject { name, backend } in subjects {
                let error = error(&case.run(backend, format), &expected);
                assert!(error < 0.01, "{name} {format:?} times {factor}: {error}");
            }
        }
    }
}
