//! Products with packed weights: the levels give the same bits, batches give the bits of single rows, and the error
//! compared with f32 stays within bounds stated beforehand. The cases are those of `testing::conformance`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use phi3v_kernels::quant::{ENCODER_REVISION, PackedShape, encode_panel};
use phi3v_kernels::testing::conformance::{Subject, packed};
use phi3v_kernels::testing::{Variant, variants};
use phi3v_kernels::{Cpu, Format};

/// Returns every variant that this processor can run, the definition first, with the given number of threads.
fn all(threads: usize) -> Vec<Subject<Cpu>> {
    let subject = |variant: &Variant| Subject {
        name: format!("{variant}, {threads} threads"),
        backend: variant.cpu(threads).unwrap(),
    };
    variants().0.iter().map(subject).collect()
}

#[test]
fn levels_threads_and_batches_give_the_same_bits() {
    packed::bits(&all(1).into_iter().chain(all(3)).collect::<Vec<_>>());
}

#[test]
fn sweeps_give_the_bits_of_single_rows() {
    // without the definition, which is slow
    packed::sweeps(&all(2)[1..]);
}

#[test]
fn long_rows_give_the_bits_that_they_have_among_many() {
    packed::long_rows(&Variant::SCALAR.cpu(2).unwrap(), &all(2)[1..]);
}

#[test]
fn normed_products_are_those_of_the_normed_rows() {
    packed::normed_products(&all(2));
}

#[test]
fn a_feed_forward_block_is_its_steps() {
    packed::feed_forward(&all(2));
}

#[test]
fn sums_are_those_of_the_decoded_weights() {
    packed::sums(&all(2));
}

#[test]
fn error_against_f32_is_within_the_stated_bounds() {
    packed::errors(&all(2));
}

#[test]
fn epilogues_and_bias_are_applied_to_the_product() {
    packed::epilogues(&all(2));
}

#[test]
fn broken_activations_show_and_zeros_stay_zero() {
    packed::broken_activations(&all(1));
}

#[test]
fn sizes_are_checked() {
    packed::sizes(&all(1)[0]);
}

/// Encodes two panels in a format, with rows of several magnitudes, zeros and outliers.
fn encoded(format: Format) -> Vec<u8> {
    let (n, k) = (70, 200);
    let shape = PackedShape::new(format, n, k).unwrap();
    let mut state = 1u32;
    let mut value = |i: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let signed = f32::from((state >> 16) as i16) / 32_768.0;
        match i % 97 {
            0 => 0.0,
            1 => 40.0 * signed,
            _ => signed * [1.0, 1e-3, 1e-6, 1e3][i / k % 4],
        }
    };
    let values: Vec<f32> = (0..n * k).map(&mut value).collect();
    let mut bytes = vec![0; shape.panels() * shape.panel_bytes()];
    for (panel, out) in bytes.chunks_exact_mut(shape.panel_bytes()).enumerate() {
        let rows = shape.panel_rows(panel);
        encode_panel(shape, panel, &values[rows.start * k..rows.end * k], out);
    }
    bytes
}

/// This number identifies quantized copies of a model. If a digest changes, the revision must increase by one, and
/// the digests here must be updated.
#[test]
fn another_encoder_has_another_revision() {
    let digest = |format| {
        // FNV-1a
        encoded(format).iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let digests = [Format::Q8, Format::Q4].map(digest);
    assert_eq!(
        (ENCODER_REVISION, digests),
        (1, [0x57ab_6b27_e741_2536, 0x0844_8405_a231_e527]),
        "{digests:#x?}"
    );
}
