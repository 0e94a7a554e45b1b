//! Handling of matrix units that fail, or are slower than integer products without them: the card does not use them.

use crate::backend::Gpu;
use crate::{Adapter, GpuError, GpuOptions, UseUnits, self_test};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{Backend, BackendError, Bytes, Epilogue, Format, MatrixSource, Precision};
use std::time::{Duration, Instant};

/// The times of a product of many rows by each kernel for it, on an opened card whose matrix units compute correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManyRowsTimes {
    /// Time with integer dot products.
    pub dot4: Duration,
    /// Time with matrix units.
    pub units: Duration,
}

impl ManyRowsTimes {
    /// Returns whether matrix units are used. They give the same bits, so by default only if they are faster.
    pub(crate) fn suit(self, use_units: UseUnits) -> bool {
        match use_units {
            UseUnits::IfFaster => self.units < self.dot4,
            UseUnits::Never => false,
            UseUnits::Always => true,
        }
    }
}

/// A q8 product to measure.
struct Probe {
    rows: usize,
    cols: usize,
    k: usize,
    /// Number of calls per measurement.
    calls: u32,
}

/// The first is enough for a software driver, the second for an integrated card. The last has 512 of the larger tiles,
/// as a prompt has, for cards of a hundred units or more.
const PROBES: [Probe; 3] = [
    Probe { rows: 64, cols: 256, k: 512, calls: 1 },
    Probe { rows: 256, cols: 1024, k: 1024, calls: 2 },
    Probe { rows: 1024, cols: 8192, k: 1024, calls: 4 },
];

/// A product that takes this long is measured precisely enough.
const LONG_ENOUGH: Duration = Duration::from_millis(2);

/// How often each kernel is measured, in alternation, so that a card that is still waking up affects both.
const TIMES: usize = 4;

/// Returns the fastest time of a product of many rows with each kernel.
pub(crate) fn times(gpu: &Gpu) -> Result<ManyRowsTimes, BackendError> {
    let mut times = ManyRowsTimes { dot4: Duration::MAX, units: Duration::MAX };
    for (i, probe) in PROBES.iter().enumerate() {
        times = match probe.times(gpu) {
            // a nearly full card is measured with what fits
            Err(BackendError::OutOfMemory { .. }) if i > 0 => break,
            times => times?,
        };
        if times.dot4.min(times.units) >= LONG_ENOUGH {
            break;
        }
    }
    Ok(times)
}

impl Probe {
    fn times(&self, gpu: &Gpu) -> Result<ManyRowsTimes, BackendError> {
        let &Self { rows, cols, k, .. } = self;
        let format = Format::Q8;
        let bytes = Bytes::from(vec![0; PackedShape::new(format, cols, k).map_or(0, PackedShape::bytes)]);
        let source = MatrixSource { bytes, format, precision: Precision::F32, n: cols, k, bias: None };
        let weight = gpu.linear_weight(source)?;
        let x = gpu.tensor(rows, k)?;
        let mut out = gpu.tensor(rows, cols)?;
        let mut times = ManyRowsTimes { dot4: Duration::MAX, units: Duration::MAX };
        for _ in 0..TIMES {
            for (units, time) in [(false, &mut times.dot4), (true, &mut times.units)] {
                gpu.device.use_units(units);
                let start = Instant::now();
                (0..self.calls).for_each(|_| gpu.linear(&x, &weight, Epilogue::Store, &mut out));
                gpu.finish()?;
                *time = start.elapsed().min(*time);
            }
        }
        Ok(ManyRowsTimes { dot4: times.dot4 / self.calls, units: times.units / self.calls })
    }
}

/// An opened card.
struct Opened<T> {
    card: T,
    /// Why matrix units are not used.
    fault: Option<Fault>,
}

/// Why matrix units are not used.
#[derive(Clone, Debug, PartialEq)]
struct Fault {
    what: String,
    /// Whether the units themselves are at fault, which will be the same at the next start.
    is_theirs: bool,
}

/// Opens a card and tests its kernels. Matrix units that fail are not used, which is stored for the next start. Units
/// that pass are used according to their times.
pub(crate) fn open(adapter: &Adapter, options: &GpuOptions) -> Result<Gpu, GpuError> {
    let cache = options.cache.as_deref();
    let open = |units: bool| {
        let use_units = if units { options.use_units } else { UseUnits::Never };
        let options = GpuOptions { use_units, ..options.clone() };
        let mut gpu = Gpu::untested(adapter.clone(), &options)?;
        gpu.found = self_test::run(&gpu, cache)?;
        gpu.device.use_units(gpu.found.times.is_some_and(|times| times.suit(use_units)));
        Ok(gpu)
    };
    if options.use_units == UseUnits::Never || adapter.matrix_units.is_none() {
        return open(false);
    }
    let known = self_test::kept_fault(adapter, cache);
    let is_known = known.is_some();
    let Opened { card: mut gpu, fault } = with_units_or_without(known, open)?;
    if let Some(fault) = fault.as_ref().filter(|fault| fault.is_theirs && !is_known) {
        self_test::keep_fault(adapter, cache, &fault.what);
    }
    gpu.units_fault = fault.map(|fault| fault.what);
    Ok(gpu)
}

/// Opens the card with `open(true)`, with matrix units, or with `open(false)`, without them. The latter is used if they
/// are known to fail, fail now, or the card itself fails: it ran out of memory or was lost, which need not be their
/// fault. An error is that of the card without units: if the card fails both times, the units are not what is wrong.
fn with_units_or_without<T>(
    known: Option<String>,
    mut open: impl FnMut(bool) -> Result<T, GpuError>,
) -> Result<Opened<T>, GpuError> {
    // messages about a shader have many lines
    let line = |reason: String| reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let fault = match known {
        Some(what) => Fault { what, is_theirs: true },
        None => match open(true) {
            Ok(card) => return Ok(Opened { card, fault: None }),
            Err(GpuError::SelfTest { what, .. }) => Fault { what, is_theirs: true },
            Err(GpuError::Refused { reason, .. }) => Fault { what: line(reason), is_theirs: true },
            Err(GpuError::Open { reason, .. }) => Fault { what: line(reason), is_theirs: false },
            Err(error) => return Err(error),
        },
    };
    Ok(Opened { card: open(false)?, fault: Some(fault) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MatrixUnits;
    use crate::found::Found;
    use crate::testing::card;
    use phi3v_kernels::testing::skip;

    fn wrong(what: &str) -> GpuError {
        GpuError::SelfTest { name: "a card".to_owned(), what: what.to_owned(), kept: None }
    }

    /// Returns what is opened, with or without units, given the results with and without; and the calls of `open`.
    fn opened(
        known: Option<&str>,
        with: Result<(), GpuError>,
        without: Result<(), GpuError>,
    ) -> (Result<Option<Fault>, GpuError>, Vec<bool>) {
        let mut asked = Vec::new();
        let result = with_units_or_without(known.map(str::to_owned), |units| {
            asked.push(units);
            let result = if units { &with } else { &without };
            result.clone().map(|()| units)
        });
        let fault = result.map(|Opened { card, fault }| {
            assert_eq!(card, fault.is_none(), "with units or a fault");
            fault
        });
        (fault, asked)
    }

    #[test]
    fn units_that_fail_are_left_out_and_a_card_that_fails_without_them_is_refused() {
        let product = || wrong("a Q8 product of 20 rows");
        let found = |what: &str, is_theirs| Ok(Some(Fault { what: what.to_owned(), is_theirs }));
        let fault = || found("a Q8 product of 20 rows", true);
        assert_eq!(opened(None, Ok(()), Err(wrong("a norm"))), (Ok(None), vec![true]));
        assert_eq!(opened(None, Err(product()), Ok(())), (fault(), vec![true, false]));
        assert_eq!(opened(Some("a Q8 product of 20 rows"), Ok(()), Ok(())), (fault(), vec![false]));
        let (name, reason) = ("a card".to_owned(), "no such\n  type".to_owned());
        let refused = GpuError::Refused { name: name.clone(), reason };
        assert_eq!(opened(None, Err(refused), Ok(())), (found("no such type", true), vec![true, false]));
        // which may not recur at the next start
        let lost = GpuError::Open { name, reason: "it was lost".to_owned() };
        assert_eq!(opened(None, Err(lost.clone()), Ok(())), (found("it was lost", false), vec![true, false]));
        assert_eq!(opened(None, Err(lost.clone()), Err(lost.clone())), (Err(lost), vec![true, false]));
        assert_eq!(
            opened(None, Err(product()), Err(wrong("a norm"))),
            (Err(wrong("a norm")), vec![true, false])
        );
        // an error unrelated to matrix units is returned at once
        let lacking = GpuError::Unsuitable { name: "a card".to_owned(), missing: "workgroups" };
        assert_eq!(opened(None, Err(lacking.clone()), Ok(())), (Err(lacking), vec![true]));
    }

    #[test]
    fn the_faster_kernel_makes_products_of_many_rows_and_the_next_start_knows() {
        let times = |dot4, units| {
            let [dot4, units] = [dot4, units].map(Duration::from_micros);
            ManyRowsTimes { dot4, units }
        };
        let (faster, slower) = (times(200, 100), times(100, 200));
        assert!(faster.suit(UseUnits::IfFaster) && !slower.suit(UseUnits::IfFaster));
        assert!(slower.suit(UseUnits::Always) && !faster.suit(UseUnits::Never));
        let Some(plain) = card() else { return };
        let adapter = plain.adapter().clone();
        let folder = tempfile::tempdir().unwrap();
        let options = GpuOptions { cache: Some(folder.path().to_owned()), ..GpuOptions::default() };
        let gpu = Gpu::open(adapter.clone(), &options).unwrap();
        let Some(found) = gpu.many_rows_times() else {
            assert!(!gpu.uses_matrix_units());
            return skip("the card has no matrix units", "take Mesa 26.1, as scripts/test-gpu says");
        };
        assert!(found.dot4 > Duration::ZERO && found.units > Duration::ZERO, "{found:?}");
        assert_eq!(gpu.uses_matrix_units(), found.units < found.dot4);
        for (times, use_units, used) in [
            (faster, UseUnits::IfFaster, true),
            (slower, UseUnits::IfFaster, false),
            (slower, UseUnits::Always, true),
        ] {
            let file = crate::found::path(folder.path(), &adapter, true);
            Found { times: Some(times), ..Found::default() }.keep(&file);
            let options = GpuOptions { use_units, ..options.clone() };
            let gpu = Gpu::open(adapter.clone(), &options).unwrap();
            assert_eq!((gpu.many_rows_times(), gpu.uses_matrix_units()), (Some(times), used));
        }
    }

    #[test]
    fn units_that_are_filled_value_by_value_give_the_same_bits() {
        let Some(plain) = card() else { return };
        let mut adapter = plain.adapter().clone();
        let Some(units) = adapter.matrix_units.as_mut() else {
            return skip("the card has no matrix units", "take Mesa 26.1, as scripts/test-gpu says");
        };
        // as Metal's are; this card's are not
        units.vectors = false;
        let gpu = Gpu::open(adapter, &GpuOptions::default()).unwrap();
        assert_eq!((gpu.matrix_units_fault(), gpu.many_rows_times().is_some()), (None, true));
    }

    #[test]
    fn a_card_that_refuses_their_kernels_runs_without_them_and_the_next_start_knows() {
        let Some(plain) = card() else { return };
        let mut adapter = plain.adapter().clone();
        if adapter.matrix_units.is_some() {
            return skip("the card has matrix units", "run it on a card without, as Mesa's in software");
        }
        let folder = tempfile::tempdir().unwrap();
        let options = GpuOptions { cache: Some(folder.path().to_owned()), ..GpuOptions::default() };
        // units that do not exist
        adapter.matrix_units = Some(MatrixUnits { tile: 16, lanes: 32, vectors: true });
        let gpu = Gpu::open(adapter.clone(), &options).unwrap();
        let fault = gpu.matrix_units_fault().unwrap().to_owned();
        assert!(!gpu.uses_matrix_units() && !fault.contains('\n') && !fault.is_empty(), "{fault}");
        assert_eq!(self_test::kept_fault(&adapter, options.cache.as_deref()), Some(fault));
        // not tested again: the stored fault is reported
        self_test::keep_fault(&adapter, options.cache.as_deref(), "a Q4 product of 20 rows");
        let gpu = Gpu::open(adapter.clone(), &options).unwrap();
        assert_eq!(gpu.matrix_units_fault(), Some("a Q4 product of 20 rows"));
        assert!(!gpu.uses_matrix_units());
        // with units disabled, no fault is reported
        let options = GpuOptions { use_units: UseUnits::Never, ..options };
        assert_eq!(Gpu::open(adapter, &options).unwrap().matrix_units_fault(), None);
    }
}
