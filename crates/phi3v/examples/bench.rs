//! The benchmark from the library: `cargo run --release --example bench -- q8`.

use phi3v::bench::{self, Plan};
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v_kernels::{Cpu, CpuOptions, KvFormat};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quant = match arguments.first().map(String::as_str) {
        Some("q8") => Some(Quant::Q8),
        Some("q4") => Some(Quant::Q4),
        _ => None,
    };
    let kv_format = if quant.is_some() { KvFormat::Q8 } else { KvFormat::Bf16 };
    let quick = arguments.iter().any(|argument| argument == "quick");
    let cpu = Cpu::new(&CpuOptions::default())?;
    let limits = cpu.limits()?;
    println!("{} threads, {}: {limits:.0?}", cpu.threads(), cpu.features());
    let config = bench::real_size();
    let weights = Weights::random(&config, quant);
    bench::run((cpu, limits), (&config, &weights, quant), &Plan { kv_format, quick }, &mut |figure| {
        let share = figure.share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share));
        let (name, unit) = (figure.name.name(), figure.name.unit());
        println!("{name:14} {:5} {:9.2} {unit:6} {share}", figure.size, figure.value);
    })?;
    Ok(())
}
