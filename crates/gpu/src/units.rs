//! Matrix units that fail: the card runs without them, for its other kernels may be right.

use crate::backend::Gpu;
use crate::{Adapter, GpuError, GpuOptions, self_test};

/// What was opened.
struct Opened<T> {
    card: T,
    /// Why matrix units are left out.
    fault: Option<String>,
}

/// Opens a card and tries its kernels; matrix units that fail are left out, and known to the next start.
pub(crate) fn open(adapter: &Adapter, options: &GpuOptions) -> Result<Gpu, GpuError> {
    let cache = options.cache.as_deref();
    let open = |units: bool| {
        let options = GpuOptions { no_matrix_units: !units, ..options.clone() };
        let mut gpu = Gpu::untested(adapter.clone(), &options)?;
        gpu.found = self_test::run(&gpu, cache)?;
        Ok(gpu)
    };
    if options.no_matrix_units || adapter.matrix_units.is_none() {
        return open(false);
    }
    let known = self_test::kept_fault(adapter, cache);
    let Opened { card: mut gpu, fault } = with_units_or_without(known.clone(), open)?;
    if let Some(fault) = fault.as_ref().filter(|_| known.is_none()) {
        self_test::keep_fault(adapter, cache, fault);
    }
    gpu.units_fault = fault;
    Ok(gpu)
}

/// Opens by `open(true)`, with matrix units, or by `open(false)` where they are known to fail or do so now. The error is of the
/// card without them: they are not what is wrong with a card that fails both times.
fn with_units_or_without<T>(
    known: Option<String>,
    mut open: impl FnMut(bool) -> Result<T, GpuError>,
) -> Result<Opened<T>, GpuError> {
    let fault = match known {
        Some(fault) => fault,
        None => match open(true) {
            Ok(card) => return Ok(Opened { card, fault: None }),
            Err(GpuError::SelfTest { what, .. }) => what,
            // of a shader over many lines
            Err(GpuError::Open { reason, .. }) => reason.split_whitespace().collect::<Vec<_>>().join(" "),
            Err(error) => return Err(error),
        },
    };
    Ok(Opened { card: open(false)?, fault: Some(fault) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MatrixUnits;
    use crate::testing::card;
    use phi3v_kernels::testing::skip;

    fn wrong(what: &str) -> GpuError {
        GpuError::SelfTest { name: "a card".to_owned(), what: what.to_owned() }
    }

    /// What is opened, whether with units, where these are the results with and without; and how it was asked for.
    fn opened(
        known: Option<&str>,
        with: Result<(), GpuError>,
        without: Result<(), GpuError>,
    ) -> (Result<Option<String>, GpuError>, Vec<bool>) {
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
        let fault = || Ok(Some("a Q8 product of 20 rows".to_owned()));
        assert_eq!(opened(None, Ok(()), Err(wrong("a norm"))), (Ok(None), vec![true]));
        assert_eq!(opened(None, Err(product()), Ok(())), (fault(), vec![true, false]));
        assert_eq!(opened(Some("a Q8 product of 20 rows"), Ok(()), Ok(())), (fault(), vec![false]));
        let refused = GpuError::Open { name: "a card".to_owned(), reason: "no such\n  type".to_owned() };
        assert_eq!(
            opened(None, Err(refused), Ok(())),
            (Ok(Some("no such type".to_owned())), vec![true, false])
        );
        assert_eq!(
            opened(None, Err(product()), Err(wrong("a norm"))),
            (Err(wrong("a norm")), vec![true, false])
        );
        // what has nothing to do with them is told at once
        let lacking = GpuError::Unsuitable { name: "a card".to_owned(), missing: "workgroups" };
        assert_eq!(opened(None, Err(lacking.clone()), Ok(())), (Err(lacking), vec![true]));
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
        // units that are not there
        adapter.matrix_units = Some(MatrixUnits { tile: 16, lanes: 32 });
        let gpu = Gpu::open(adapter.clone(), &options).unwrap();
        let fault = gpu.matrix_units_fault().unwrap().to_owned();
        assert!(!gpu.uses_matrix_units() && !fault.contains('\n') && !fault.is_empty(), "{fault}");
        assert_eq!(self_test::kept_fault(&adapter, options.cache.as_deref()), Some(fault));
        // not tried again: what is told is what was kept
        self_test::keep_fault(&adapter, options.cache.as_deref(), "a Q4 product of 20 rows");
        let gpu = Gpu::open(adapter.clone(), &options).unwrap();
        assert_eq!(gpu.matrix_units_fault(), Some("a Q4 product of 20 rows"));
        assert!(!gpu.uses_matrix_units());
        // who leaves them alone is told of no fault
        let options = GpuOptions { no_matrix_units: true, ..options };
        assert_eq!(Gpu::open(adapter, &options).unwrap().matrix_units_fault(), None);
    }
}
