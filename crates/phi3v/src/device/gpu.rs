//! Chooses a graphics card, and decides whether it is worth using.

use super::{Card, Device, DeviceChoice, DeviceError, DeviceOptions, ManyRowsTimes};
use phi3v_gpu::{Adapter, AdapterKind, Choice, Gpu, GpuError, GpuOptions};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{Backend, BackendError, Bytes, Epilogue, Format, MatrixSource, Precision};
use std::time::{Duration, Instant};

impl From<&Adapter> for Card {
    fn from(adapter: &Adapter) -> Self {
        Self {
            number: adapter.number,
            name: adapter.name.clone(),
            kind: adapter.kind.to_string(),
            api: adapter.api.clone(),
            driver: adapter.driver.clone(),
            memory_bytes: adapter.memory_bytes,
            available_bytes: adapter.available_bytes,
            binding_bytes_max: adapter.binding_bytes_max,
            workgroup_bytes: adapter.workgroup_bytes,
            matrix_units: adapter.matrix_units.map(|units| units.tile),
            matrix_units_fault: None,
            many_rows_times: None,
            bits_differ: None,
        }
    }
}

pub(super) fn cards() -> Vec<Card> {
    phi3v_gpu::adapters().iter().map(Card::from).collect()
}

pub(super) fn card(device: &Device) -> Option<Card> {
    let Device::Gpu(gpu) = device else { return None };
    let matrix_units_fault = gpu.matrix_units_fault().map(str::to_owned);
    let bits_differ = gpu.bits_differ().map(str::to_owned);
    let times = |phi3v_gpu::ManyRowsTimes { dot4, units }| ManyRowsTimes { dot4, units };
    let many_rows_times = gpu.many_rows_times().map(times);
    Some(Card { matrix_units_fault, many_rows_times, bits_differ, ..gpu.adapter().into() })
}

fn gpu_options(options: &DeviceOptions, choice: Choice) -> GpuOptions {
    GpuOptions { choice, cache: options.gpu_cache.clone(), ..GpuOptions::default() }
}

/// Opens the card that the user chose.
pub(super) fn open(named: &DeviceChoice, options: &DeviceOptions) -> Result<Device, DeviceError> {
    let choice = match named {
        DeviceChoice::Gpu(Some(number)) => Choice::Number(*number),
        DeviceChoice::Named(name) => Choice::Name(name.clone()),
        _ => Choice::Best,
    };
    match (Gpu::new(&gpu_options(options, choice)), named) {
        (Ok(gpu), _) => Ok(Device::Gpu(gpu)),
        (Err(GpuError::UnknownAdapter { .. } | GpuError::NoAdapter), DeviceChoice::Named(name)) => {
            let names: Vec<_> = cards().into_iter().map(|card| format!("{:?}", card.name)).collect();
            Err(DeviceError::unknown(name, &names))
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// A card that may run the model and is not opened yet.
struct Candidate<F> {
    name: String,
    kind: AdapterKind,
    open: F,
}

/// The best card worth using, see [`first_worth`]. A card that fails is reported.
pub(super) fn automatic(options: &DeviceOptions, tell: &mut dyn FnMut(&str)) -> Option<Device> {
    let candidates = phi3v_gpu::adapters().into_iter().map(|adapter| Candidate {
        name: adapter.name.clone(),
        kind: adapter.kind,
        open: move || Gpu::open(adapter, &gpu_options(options, Choice::Best)),
    });
    first_worth(candidates, |gpu| is_faster(gpu, options), tell).map(Device::Gpu)
}

/// The first card worth using: a discrete or Apple one; one that shares memory (or does not say) if faster than the CPU;
/// never software. A card that fails is reported and the next tried.
fn first_worth<T, F: FnOnce() -> Result<T, GpuError>>(
    candidates: impl Iterator<Item = Candidate<F>>,
    is_faster: impl Fn(&T) -> bool,
    tell: &mut dyn FnMut(&str),
) -> Option<T> {
    let mut failed: Option<GpuError> = None;
    for Candidate { name, kind, open } in candidates.filter(|card| card.kind != AdapterKind::Software) {
        let certain = kind == AdapterKind::Discrete || ARE_APPLES;
        match open() {
            Ok(card) if certain || is_faster(&card) => {
                if let Some(error) = failed {
                    tell(&told(&error, &name));
                }
                return Some(card);
            }
            Ok(_) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        tell(&told(&error, "the processor"));
    }
    None
}

/// Whether cards that share the processor's memory are Apple's own. On Macs with Intel processors they are Intel's.
const ARE_APPLES: bool = cfg!(all(target_vendor = "apple", target_arch = "aarch64"));

/// The message about a card that cannot be used and is replaced by `other`.
fn told(error: &GpuError, other: &str) -> String {
    let again = error.again().map(|again| format!("; {again}")).unwrap_or_default();
    format!("{error}, so {other} runs the model{again}")
}

/// Whether the first token comes sooner than on the processor, judged by products of many rows, which dominate that time.
fn is_faster(gpu: &Gpu, options: &DeviceOptions) -> bool {
    let Ok(Device::Cpu(cpu)) = Device::processor(options) else { return false };
    match (prefill_time(gpu), prefill_time(&cpu)) {
        (Ok(gpu), Ok(cpu)) => gpu < cpu,
        _ => false,
    }
}

/// The shortest of three times of a product of 256 rows with a q8 matrix: half a billion operations, a few milliseconds.
fn prefill_time<B: Backend>(backend: &B) -> Result<Duration, BackendError> {
    const ROWS: usize = 256;
    const SIDE: usize = 1024;
    let format = Format::Q8;
    let bytes = PackedShape::new(format, SIDE, SIDE).map_or(0, PackedShape::bytes);
    let bytes = Bytes::from(vec![0; bytes]);
    let source = MatrixSource { bytes, format, precision: Precision::F32, n: SIDE, k: SIDE, bias: None };
    let weight = backend.linear_weight(source)?;
    let x = backend.tensor(ROWS, SIDE)?;
    let mut out = backend.tensor(ROWS, SIDE)?;
    let mut time = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        backend.linear(&x, &weight, Epilogue::Store, &mut out);
        backend.finish()?;
        time = time.min(start.elapsed());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn the_probe_measures_the_processor() {
        let Ok(Device::Cpu(cpu)) = Device::processor(&DeviceOptions::default()) else {
            panic!("no processor")
        };
        let time = prefill_time(&cpu).unwrap();
        assert!(time > Duration::ZERO && time < Duration::MAX);
    }

    /// How a card behaves when it is opened.
    #[derive(Clone, Copy)]
    enum Is {
        Faster,
        Slower,
        Wrong,
        /// Its driver lacks something.
        Unsuitable,
    }

    /// Returns which of these cards runs the model, which were opened, and what was reported.
    fn chosen(
        cards: &[(&'static str, AdapterKind, Is)],
    ) -> (Option<&'static str>, Vec<&'static str>, Vec<String>) {
        let opened = RefCell::new(Vec::new());
        let candidates = cards.iter().map(|&(name, kind, is)| {
            let opened = &opened;
            let open = move || {
                opened.borrow_mut().push(name);
                let (owned, what) = (name.to_owned(), "a norm".to_owned());
                match is {
                    Is::Faster | Is::Slower => Ok((name, matches!(is, Is::Faster))),
                    Is::Wrong => Err(GpuError::SelfTest { name: owned, what, kept: None }),
                    Is::Unsuitable => Err(GpuError::Unsuitable { name: owned, missing: "timestamps" }),
                }
            };
            Candidate { name: name.to_owned(), kind, open }
        });
        let mut told = Vec::new();
        let card = first_worth(candidates, |(_, faster)| *faster, &mut |line| told.push(line.to_owned()));
        (card.map(|(name, _)| name), opened.into_inner(), told)
    }

    #[test]
    fn a_card_that_fails_is_told_of_once_and_the_next_or_the_processor_takes_its_place() {
        use AdapterKind::{Discrete, Integrated};
        let wrong = ("Wrong", Discrete, Is::Wrong);
        let right = ("Right", Discrete, Is::Faster);
        let told = |line: &str| vec![line.to_owned()];
        assert_eq!(chosen(&[]), (None, vec![], vec![]));
        assert_eq!(chosen(&[right, wrong]), (Some("Right"), vec!["Right"], vec![]));
        assert_eq!(
            chosen(&[wrong, right]),
            (
                Some("Right"),
                vec!["Wrong", "Right"],
                told("Wrong computes wrongly (a norm), so Right runs the model")
            )
        );
        let none = "Wrong computes wrongly (a norm), so the processor runs the model";
        assert_eq!(chosen(&[wrong]), (None, vec!["Wrong"], told(none)));
        // if two cards fail, the first (better) one is reported
        let old = ("Old", Integrated, Is::Unsuitable);
        assert_eq!(chosen(&[wrong, old]), (None, vec!["Wrong", "Old"], told(none)));
        let none = "Old has no timestamps, so the processor runs the model";
        assert_eq!(chosen(&[old, wrong]), (None, vec!["Old", "Wrong"], told(none)));
    }

    #[test]
    fn a_card_that_is_not_tried_again_is_told_of_with_the_file_that_keeps_it_from_that() {
        let kept = Some("/cache/a card.self-test".into());
        let (name, what) = ("Wrong".to_owned(), "its driver crashed twice".to_owned());
        let line = told(&GpuError::SelfTest { name, what, kept }, "the processor");
        let all = "Wrong computes wrongly (its driver crashed twice), so the processor runs the model; \
                   delete /cache/a card.self-test to have the card tried again";
        assert_eq!(line, all);
    }

    #[test]
    fn what_shares_the_processors_memory_must_be_faster_and_software_is_never_opened() {
        use AdapterKind::{Discrete, Integrated, Other, Software};
        assert_eq!(chosen(&[("Lavapipe", Software, Is::Faster)]), (None, vec![], vec![]));
        assert_eq!(chosen(&[("Card", Discrete, Is::Slower)]), (Some("Card"), vec!["Card"], vec![]));
        for kind in [Integrated, Other] {
            assert_eq!(chosen(&[("Part", kind, Is::Faster)]), (Some("Part"), vec!["Part"], vec![]));
            if !ARE_APPLES {
                assert_eq!(chosen(&[("Part", kind, Is::Slower)]), (None, vec!["Part"], vec![]));
                let two = [("Part", kind, Is::Slower), ("Next", kind, Is::Faster)];
                assert_eq!(chosen(&two), (Some("Next"), vec!["Part", "Next"], vec![]));
            }
        }
    }
}
