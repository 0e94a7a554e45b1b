//! Products with packed weights: the levels give the same bits, batches give the bits of single rows, and the error
//! against f32 stays within bounds stated beforehand. The cases are those of `testing::conformance`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use phi3v_kernels::Cpu;
use phi3v_kernels::testing::conformance::{Subject, packed};
use phi3v_kernels::testing::{Variant, variants};

/// Every variant this processor can run, the definition first, with the given number of threads.
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
