//! Every operation in every variant that this processor can run, at awkward shapes: compared with the scalar level,
//! and the scalar level with f64. The cases are those of `testing::conformance`; an asynchronous backend runs them
//! too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

use phi3v_kernels::Cpu;
use phi3v_kernels::testing::conformance::{Subject, attention, dense, rows};
use phi3v_kernels::testing::{self, Deferred, Variant, variants};

fn scalar() -> Subject<Cpu> {
    Subject { name: "scalar".to_owned(), backend: Variant::SCALAR.cpu(2).unwrap() }
}

/// Returns every variant that this processor can run, the definition first. Prints the variants that are not tested.
fn all() -> Vec<Subject<Cpu>> {
    let (available, missing) = variants();
    for variant in missing {
        let what = format!("{variant} is not available here");
        testing::skip(&what, &format!("use a processor with {variant}"));
    }
    let subject = |variant: &Variant| Subject { name: variant.to_string(), backend: variant.cpu(2).unwrap() };
    available.iter().map(subject).collect()
}

/// Returns the best level, run only at downloads.
fn deferred() -> [Subject<Deferred<Cpu>>; 1] {
    let Subject { name, backend } = all().pop().unwrap();
    [Subject { name: format!("deferred {name}"), backend: Deferred::new(backend) }]
}

#[test]
fn dense_products_are_the_formula() {
    dense::is_the_formula(&scalar());
}

#[test]
fn dense_products_agree() {
    dense::agrees(&scalar().backend, &all()[1..]);
}

#[test]
fn dense_products_agree_when_deferred() {
    dense::agrees(&scalar().backend, &deferred());
}

#[test]
fn a_row_does_not_depend_on_its_company_or_the_threads() {
    for variant in variants().0 {
        let [one, three] = [1, 3]
            .map(|threads| Subject { name: variant.to_string(), backend: variant.cpu(threads).unwrap() });
        dense::rows_know_no_company(&one, &three);
    }
}

#[test]
fn operations_on_rows() {
    rows::norms(&all());
    rows::sums_and_rotations(&all());
    rows::lookups(&all());
    rows::shapes(&all());
}

#[test]
fn operations_on_rows_when_deferred() {
    rows::norms(&deferred());
    rows::sums_and_rotations(&deferred());
    rows::lookups(&deferred());
    rows::shapes(&deferred());
}

#[test]
fn rows_of_causal_attention_are_the_formula() {
    attention::causal_is_the_formula(&scalar());
}

#[test]
fn causal_attention_agrees() {
    attention::causal_agrees(&scalar().backend, &all()[1..]);
}

#[test]
fn causal_attention_agrees_when_deferred() {
    attention::causal_agrees(&scalar().backend, &deferred());
}

#[test]
fn causal_attention_of_large_scores() {
    attention::large_scores(&all());
}

#[test]
fn what_is_rotated_and_stored_at_a_time_is_as_in_steps() {
    attention::rotated_rows_are_stored(&all());
}

#[test]
fn what_is_rotated_and_stored_at_a_time_is_as_in_steps_when_deferred() {
    attention::rotated_rows_are_stored(&deferred());
}

#[test]
fn a_block_of_keys_and_values_forgets_whose_it_was() {
    attention::blocks_are_left_clean(&all());
}

#[test]
fn what_is_no_number_shows_in_the_rows_that_see_it_alone() {
    attention::broken_values(&all());
}

#[test]
fn a_prompt_may_be_cut_into_chunks() {
    attention::prompts_may_be_cut(&all()[1..]);
}

#[test]
fn the_attention_of_threads_is_that_of_one() {
    for variant in variants().0 {
        let with = |threads| Subject {
            name: format!("{variant}, {threads} threads"),
            backend: variant.cpu(threads).unwrap(),
        };
        attention::threads_do_not_show(&[1, 2, 5].map(with));
    }
}

#[test]
fn full_attention() {
    attention::full_agrees(&scalar().backend, &all()[1..]);
}
