//! Every operation against the CPU's scalar level, with the cases that all backends run; on whatever card there is, if only
//! Mesa's software Vulkan.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use phi3v_gpu::{Choice, Gpu, GpuOptions, adapters};
use phi3v_kernels::Cpu;
use phi3v_kernels::testing::conformance::{Subject, attention, dense, packed, rows};
use phi3v_kernels::testing::{self, Variant};

fn scalar() -> Subject<Cpu> {
    Subject { name: "scalar".to_owned(), backend: Variant::SCALAR.cpu(2).unwrap() }
}

/// The card that `PHI3V_TEST_GPU` names, or the first; none where there is none, which is said aloud.
fn subjects() -> Vec<Subject<Gpu>> {
    let choice = std::env::var("PHI3V_TEST_GPU").map_or(Choice::Number(0), Choice::Name);
    if adapters().is_empty() {
        let needed = std::env::var_os("PHI3V_NEEDS_GPU").is_some_and(|value| value != "0");
        assert!(!needed, "no graphics card was found, and PHI3V_NEEDS_GPU asks for one");
        testing::skip("no graphics card was found", "run scripts/test-gpu, which installs one in software");
        return Vec::new();
    }
    let backend = Gpu::new(&GpuOptions { choice, ..GpuOptions::default() }).unwrap();
    vec![Subject { name: backend.adapter().name.clone(), backend }]
}

#[test]
fn operations_on_rows() {
    let subjects = subjects();
    rows::norms(&subjects);
    rows::sums_and_rotations(&subjects);
    rows::lookups(&subjects);
    rows::shapes(&subjects);
}

#[test]
fn packed_products() {
    let subjects = subjects();
    packed::sums(&subjects);
    packed::epilogues(&subjects);
    packed::broken_activations(&subjects);
    subjects.iter().for_each(packed::sizes);
}

#[test]
fn packed_products_in_blocks() {
    packed::normed_products(&subjects());
    packed::feed_forward(&subjects());
}

#[test]
fn packed_products_in_any_company() {
    packed::bits(&subjects());
}

#[test]
fn dense_products() {
    let subjects = subjects();
    subjects.iter().for_each(dense::is_the_formula);
    if let [subject] = &subjects[..] {
        dense::rows_know_no_company(subject, subject);
    }
    dense::agrees(&scalar().backend, &subjects);
}

#[test]
fn causal_attention() {
    let subjects = subjects();
    subjects.iter().for_each(attention::causal_is_the_formula);
    attention::large_scores(&subjects);
    attention::causal_agrees(&scalar().backend, &subjects);
}

#[test]
fn a_prompt_may_be_cut_into_chunks() {
    attention::prompts_may_be_cut(&subjects());
}

#[test]
fn full_attention() {
    attention::full_agrees(&scalar().backend, &subjects());
}
