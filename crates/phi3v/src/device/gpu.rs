//! Graphics cards: which one, and whether it is worth it.

use super::{Card, Device, DeviceChoice, DeviceError, DeviceOptions};
use phi3v_gpu::{Adapter, AdapterKind, Choice, Gpu, GpuError, GpuOptions};
use phi3v_kernels::quant::PackedShape;
use phi3v_kernels::{Backend, BackendError, Bytes, Epilogue, Format, MatrixSource, Precision};
use std::time::{Duration, Instant};

impl From<&Adapter> for Card {
    fn from(adapter: &Adapter) -> Self {
        Self {
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
        }
    }
}

pub(super) fn cards() -> Vec<Card> {
    phi3v_gpu::adapters().iter().map(Card::from).collect()
}

pub(super) fn card(device: &Device) -> Option<Card> {
    let Device::Gpu(gpu) = device else { return None };
    let matrix_units_fault = gpu.matrix_units_fault().map(str::to_owned);
    Some(Card { matrix_units_fault, ..gpu.adapter().into() })
}

fn gpu_options(options: &DeviceOptions, choice: Choice) -> GpuOptions {
    GpuOptions { choice, cache: options.gpu_cache.clone(), ..GpuOptions::default() }
}

/// The card that was asked for.
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

/// The best card that is worth it: one with memory of its own or of Apple's is, one that shares the processor's, or of which
/// its driver does not tell, where it is the faster of the two; never one in software. A card that cannot be used is told of
/// and the next one tried.
pub(super) fn automatic(options: &DeviceOptions, tell: &mut dyn FnMut(&str)) -> Option<Device> {
    let mut failed: Option<String> = None;
    for adapter in phi3v_gpu::adapters().into_iter().filter(|adapter| adapter.kind != AdapterKind::Software) {
        let certain = adapter.kind == AdapterKind::Discrete || cfg!(target_vendor = "apple");
        match Gpu::open(adapter, &gpu_options(options, Choice::Best)) {
            Ok(gpu) if certain || is_faster(&gpu, options) => {
                if let Some(error) = failed {
                    tell(&format!("{error}, so {} runs the model", gpu.adapter().name));
                }
                return Some(Device::Gpu(gpu));
            }
            Ok(_) => {}
            Err(error) => failed = failed.or(Some(error.to_string())),
        }
    }
    if let Some(error) = failed {
        tell(&format!("{error}, so the processor runs the model"));
    }
    None
}

/// Whether the first token will come sooner than by the processor: it takes as long as products of many rows do.
fn is_faster(gpu: &Gpu, options: &DeviceOptions) -> bool {
    let Ok(Device::Cpu(cpu)) = Device::processor(options) else { return false };
    match (prefill_time(gpu), prefill_time(&cpu)) {
        (Ok(gpu), Ok(cpu)) => gpu < cpu,
        _ => false,
    }
}

/// What a product of 256 rows with a q8 matrix takes, the second time: half a billion multiplications, so some milliseconds.
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

    #[test]
    fn the_probe_measures_the_processor() {
        let Ok(Device::Cpu(cpu)) = Device::processor(&DeviceOptions::default()) else {
            panic!("no processor")
        };
        let time = prefill_time(&cpu).unwrap();
        assert!(time > Duration::ZERO && time < Duration::MAX);
    }
}
