//! A device chosen by its name does what its own backend does: the cases that every backend runs, through the one type.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use phi3v::device::{Device, DeviceChoice, DeviceOptions};
use phi3v_kernels::CpuLevel;
use phi3v_kernels::testing::conformance::{Subject, attention, dense, packed, rows};

fn scalar() -> Device {
    common::device(Some(CpuLevel::Scalar), Some(2))
}

fn best() -> [Subject<Device>; 1] {
    [Subject { name: "the default device".to_owned(), backend: common::device(None, None) }]
}

#[test]
fn operations_are_those_of_the_device_inside() {
    rows::norms(&best());
    rows::sums_and_rotations(&best());
    rows::lookups(&best());
    rows::shapes(&best());
    // what is inside has tests of its own in every shape; here few show that it is asked
    best().iter().for_each(dense::is_the_formula);
    attention::large_scores(&best());
    attention::full_agrees(&scalar(), &best());
}

#[test]
fn operations_that_a_device_may_fuse_are_their_steps() {
    packed::normed_products(&best());
    packed::feed_forward(&best());
    attention::rotated_rows_are_stored(&best());
}

#[test]
fn a_device_is_named_in_any_case_and_none_other() {
    for (name, choice) in
        [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), (" CPU ", DeviceChoice::Cpu)]
    {
        assert_eq!(name.parse::<DeviceChoice>().unwrap(), choice);
        assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
    }
    // of two H100, 1 is the second and not the first whose name has a 1 in it
    for (name, number) in
        [("gpu", None), ("gpu:0", Some(0)), ("GPU:12", Some(12)), ("0", Some(0)), (" 1 ", Some(1))]
    {
        assert_eq!(name.parse::<DeviceChoice>().unwrap(), DeviceChoice::Gpu(number));
    }
    for name in ["4090", "100", "RTX 4090", "H100"] {
        assert_eq!(name.parse::<DeviceChoice>().unwrap(), DeviceChoice::Named(name.to_owned()));
    }
    let unknown = |name: &str| {
        let choice = name.parse::<DeviceChoice>()?;
        Device::open(&DeviceOptions { choice, ..DeviceOptions::default() }).map(|_| ())
    };
    for name in ["", "cpu0", "processor", "auto,cpu", "gpu:", "gpu:x", "gpu:-1"] {
        let error = unknown(name).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("no device is called {name:?}; there are auto")), "{text}");
        assert!(text.contains("cpu") && error.hint().is_some(), "{text}");
    }
}

/// A variable is a process's: the test runs itself again in one that has it.
#[test]
fn the_variable_names_the_device_where_nobody_else_does() {
    const NAME: &str = "the_variable_names_the_device_where_nobody_else_does";
    const CHILD: &str = "PHI3V_TEST_OF_DEVICE_CHILD";
    if let Some(called) = std::env::var_os(CHILD) {
        let error = Device::open(&DeviceOptions::default()).err().unwrap().to_string();
        assert!(error.starts_with(&format!("no device is called {:?}", called.to_str().unwrap())), "{error}");
        // who names one is asked no further
        let named = DeviceOptions { choice: DeviceChoice::Cpu, ..DeviceOptions::default() };
        assert!(Device::open(&named).unwrap().cpu().is_some());
        return;
    }
    #[cfg(unix)]
    let odd: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"tp\xff".to_vec());
    #[cfg(not(unix))]
    let odd = std::ffi::OsString::from("tp\u{fffd}");
    for (value, called) in [(" tpu".into(), "tpu"), (odd, "tp\u{fffd}")] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", NAME]).env("PHI3V_DEVICE", value).env(CHILD, called).output();
        let told = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(told.contains("1 passed"), "{told}");
    }
}

#[test]
fn the_processor_tells_what_only_it_has() {
    let device = common::device(Some(CpuLevel::Scalar), Some(3));
    let cpu = device.cpu().unwrap();
    assert_eq!((cpu.level(), cpu.threads()), (CpuLevel::Scalar, 3));
    let error = Device::open(&DeviceOptions { threads: Some(0), ..DeviceOptions::default() }).err().unwrap();
    assert_eq!(error.to_string(), "0 threads were asked for, the limit is 1 to 1024");
    assert_eq!(error.hint().unwrap(), "leave the number of threads out for one per physical core");
}
