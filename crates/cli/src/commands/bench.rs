//! `phi3v bench`: the model's speed on this machine, compared with the machine's limits.

use super::machine::CardInfo;
use crate::args::{BenchArgs, BenchFormat};
use crate::bench::{self, BenchError, Figure, LeftOut, MeasuredDevice, Plan, Reason, Told};
use crate::error::CliError;
use crate::hub::{HubOptions, ModelName};
use crate::terminal::print;
use crate::{note, report, runtime};
use phi3v::checkpoint::Checkpoint;
use phi3v::config::ModelConfig;
use phi3v::device::Device;
use phi3v::error::count;
use phi3v::image::NUM_CROPS_HIGH;
use phi3v::memory::{MemoryRequest, available_bytes, size as size_in_words};
use phi3v::weights::quantized::Quant;
use phi3v::weights::{Weights, weights_bytes};
use phi3v_kernels::{KvFormat, Limits, Processor, Rate};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Printed if a share is above 100 %.
const ABOVE_THE_LIMIT: &str = "note: a share above 100 % means that the machine was slower when its limit was measured, \
    or that the weights are so few that they stay in the processor's caches";

/// Memory that the bandwidth test may read if the available memory is unknown.
const MEMORY_UNKNOWN: u64 = 2 << 30;

/// The processor, and the card if one runs the model.
#[derive(Serialize)]
struct Machine {
    /// Absent if a card runs the model: only a processor's limits are measured.
    #[serde(flatten)]
    limits: Option<MachineLimits>,
    threads: usize,
    cpu_level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<CardInfo>,
}

/// The limits of the processor, measured in this run: medians.
#[derive(Serialize)]
struct MachineLimits {
    int8_gops: f64,
    bf16_gflops: f64,
    f32_gflops: f64,
    read_gb_s: f64,
    quartiles: Quartiles,
    /// Bytes that the bandwidth test read repeatedly.
    read_bytes: usize,
}

/// The interquartile range of the rates.
#[derive(Serialize)]
struct Quartiles {
    int8_gops: [f64; 2],
    bf16_gflops: [f64; 2],
    f32_gflops: [f64; 2],
    read_gb_s: [f64; 2],
}

/// The limits that the shares of a format's figures refer to, measured anew for each format.
#[derive(Serialize)]
struct FormatLimits {
    format: &'static str,
    #[serde(flatten)]
    limits: MachineLimits,
}

#[derive(Serialize)]
struct Outcome {
    name: &'static str,
    format: &'static str,
    size: usize,
    /// The median of the readings.
    value: f64,
    /// The quartiles of the readings; of up to three, the lowest and highest.
    quartiles: [f64; 2],
    readings: usize,
    unit: &'static str,
    share: Option<f64>,
}

/// A figure that was not measured.
#[derive(Serialize)]
struct Missing {
    name: &'static str,
    format: &'static str,
    size: usize,
    reason: String,
}

#[derive(Default, Serialize)]
struct Report {
    /// The machine with the limits of the first format; `None` before that.
    machine: Option<Machine>,
    limits: Vec<FormatLimits>,
    results: Vec<Outcome>,
    left_out: Vec<Missing>,
}

/// The model to measure: a named one, or random weights in a format.
enum Wanted<'a> {
    Checkpoint(&'a str),
    Random(BenchFormat),
}

/// A model to measure; nothing large of it is in memory yet.
struct Subject {
    config: ModelConfig,
    quant: Option<Quant>,
    /// The weights of a checkpoint, mapped; random ones are made if `None`.
    stored: Option<Weights>,
    opened: Duration,
}

/// Measures and prints the results.
///
/// # Errors
/// The model or the processor's settings are rejected, or stdout cannot be written to.
pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    if let Some(model) = &args.model {
        // before the machine's limits are measured, which takes half a minute
        ModelName::parse(model)?;
    }
    let processor = runtime::processor(&args.device)?;
    let mut report = Report::default();
    for wanted in Wanted::all(args) {
        // before a download, which a wrong flag should not trigger
        let device = runtime::device(&args.device)?;
        let subject = wanted.open()?;
        let plan = subject.plan(args);
        let device = measured(device, args, &subject, &plan)?;
        let format = subject.quant.map_or("bf16", Quant::name);
        let limits =
            device.limits.as_ref().map(|limits| FormatLimits { format, limits: MachineLimits::new(limits) });
        if report.machine.is_none() {
            let machine = report.machine.insert(Machine::new(processor, &device));
            if !args.json {
                print(Header(machine)).map_err(CliError::Output)?;
            }
        } else if let Some(limits) = limits.as_ref().filter(|_| !args.json) {
            print(limits).map_err(CliError::Output)?;
        }
        report.limits.extend(limits);
        measure(device, subject, &plan, &mut |told| report.take(format, told, args.json))?;
    }
    if args.json {
        return print(report::json(&report) + "\n").map_err(CliError::Output);
    }
    if report.results.iter().any(|result| result.share.is_some_and(|share| share > 1.0)) {
        note!("{ABOVE_THE_LIMIT}");
    }
    Ok(())
}

/// The device, if it has room for the model (or the fallback device), and its limits, measured now because a machine's speed
/// drifts.
///
/// # Errors
/// The model or the memory cannot handle the benchmark.
fn measured(
    device: Device,
    args: &BenchArgs,
    subject: &Subject,
    plan: &Plan,
) -> Result<MeasuredDevice, CliError> {
    let request = MemoryRequest {
        weights_bytes: subject.weights_bytes(),
        kv_format: plan.kv_format,
        num_crops: NUM_CROPS_HIGH,
        prefill_chunk: None,
        image_cache_bytes: 0,
        kept_bytes: 0,
        context: Some(plan.tokens_max()),
    };
    let (device, planned) = runtime::on_fitting(device, &args.device, &subject.config, &request);
    planned.map_err(|error| CliError::Bench(error.into()))?;
    // if the available memory is unknown, assume the least of any machine that runs the model
    let memory = available_bytes().unwrap_or(MEMORY_UNKNOWN);
    let limits = device.cpu().map(|cpu| cpu.limits(memory)).transpose().map_err(phi3v::Error::from)?;
    Ok(MeasuredDevice { device, limits })
}

impl<'a> Wanted<'a> {
    fn all(args: &'a BenchArgs) -> Vec<Self> {
        match &args.model {
            Some(model) => vec![Self::Checkpoint(model)],
            None => args.format.iter().map(|format| Self::Random(*format)).collect(),
        }
    }

    fn open(self) -> Result<Subject, CliError> {
        let start = Instant::now();
        match self {
            Self::Checkpoint(name) => {
                let Checkpoint { config, weights, .. } = runtime::checkpoint(name, &HubOptions::from_env())?;
                let quant = weights.quant();
                Ok(Subject { config, quant, stored: Some(weights), opened: start.elapsed() })
            }
            Self::Random(format) => {
                let (config, quant) = (ModelConfig::phi_3_5_vision(), format.quant());
                Ok(Subject { config, quant, stored: None, opened: Duration::ZERO })
            }
        }
    }
}

impl Subject {
    fn weights_bytes(&self) -> u64 {
        self.stored.as_ref().map_or_else(|| weights_bytes(&self.config, self.quant), Weights::bytes_total)
    }

    fn plan(&self, args: &BenchArgs) -> Plan {
        let default = if self.quant.is_some() { KvFormat::Q8 } else { KvFormat::Bf16 };
        let kv_format = args.kv.map_or(default, |kv| kv.format());
        Plan { kv_format, quick: args.quick, depths: args.depth.clone(), opened: self.opened }
    }
}

fn measure(
    device: MeasuredDevice,
    subject: Subject,
    plan: &Plan,
    tell: bench::Report<'_>,
) -> Result<(), CliError> {
    let Subject { config, quant, stored, .. } = subject;
    let weights = stored.unwrap_or_else(|| Weights::random(&config, quant));
    let model = bench::Subject { config: &config, weights: &weights, quant };
    bench::run(device, model, plan, tell).map_err(|error| match error {
        BenchError::Model(error) => CliError::Bench(error),
        BenchError::Report(error) => CliError::Output(error),
    })
}

impl Machine {
    fn new(processor: Processor, MeasuredDevice { device, limits }: &MeasuredDevice) -> Self {
        Self {
            limits: limits.as_ref().map(MachineLimits::new),
            threads: processor.threads(),
            cpu_level: processor.level().to_string(),
            card: device.card().map(CardInfo::from),
        }
    }
}

impl MachineLimits {
    fn new(limits: &Limits) -> Self {
        let Limits { int8_gops, bf16_gflops, f32_gflops, read_gb_s, read_bytes } = *limits;
        let quartiles = |rate: Rate| [rate.low, rate.high];
        Self {
            int8_gops: int8_gops.median,
            bf16_gflops: bf16_gflops.median,
            f32_gflops: f32_gflops.median,
            read_gb_s: read_gb_s.median,
            quartiles: Quartiles {
                int8_gops: quartiles(int8_gops),
                bf16_gflops: quartiles(bf16_gflops),
                f32_gflops: quartiles(f32_gflops),
                read_gb_s: quartiles(read_gb_s),
            },
            read_bytes,
        }
    }
}

impl std::fmt::Display for MachineLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { int8_gops, bf16_gflops, f32_gflops, read_gb_s, quartiles, read_bytes } = self;
        let between = |[low, high]: [f64; 2]| format!("({low:.0} to {high:.0})");
        write!(f, "at most  int8 {int8_gops:.0} {} G/s, ", between(quartiles.int8_gops))?;
        write!(f, "bf16 {bf16_gflops:.0} {} G/s, ", between(quartiles.bf16_gflops))?;
        writeln!(f, "f32 {f32_gflops:.0} {} G/s", between(quartiles.f32_gflops))?;
        let [low, high] = quartiles.read_gb_s;
        let memory = size_in_words(*read_bytes as u64);
        writeln!(f, "         {read_gb_s:.1} ({low:.1} to {high:.1}) GB/s read from {memory} of memory")?;
        writeln!(f, "         (between the figures in brackets lie half of the readings)\n")
    }
}

impl Report {
    /// Stores a result of a format; prints it at once unless the whole report is wanted as JSON.
    fn take(&mut self, format: &'static str, told: Told, json: bool) -> std::io::Result<()> {
        match told {
            Told::Figure(figure) => {
                let outcome = Outcome::new(format, figure);
                if !json {
                    print(&outcome)?;
                }
                self.results.push(outcome);
            }
            Told::LeftOut(left_out) => {
                let missing = Missing::new(format, left_out);
                if !json {
                    let Missing { name, size, reason, .. } = &missing;
                    let after =
                        if *size == 0 { String::new() } else { format!(" after {}", count(*size, "token")) };
                    note!("{name}{after} is left out: {reason}");
                }
                self.left_out.push(missing);
            }
        }
        Ok(())
    }
}

impl Outcome {
    fn new(format: &'static str, figure: Figure) -> Self {
        let Figure { name, size, value, quartiles, readings, share } = figure;
        Self { name: name.name(), format, size, value, quartiles, readings, unit: name.unit(), share }
    }
}

impl Missing {
    fn new(format: &'static str, LeftOut { name, size, reason }: LeftOut) -> Self {
        let reason = match reason {
            Reason::NotTold => "this system does not tell it".to_owned(),
            Reason::Memory { needed_bytes, limit_bytes: None } => format!(
                "the keys and values take {}, and nobody tells how much memory is free",
                size_in_words(needed_bytes)
            ),
            Reason::Memory { needed_bytes, limit_bytes: Some(limit) } => format!(
                "the keys and values take {}, and {} of memory are free for them",
                size_in_words(needed_bytes),
                size_in_words(limit)
            ),
        };
        Self { name: name.name(), format, size, reason }
    }
}

/// Displays the machine with its limits, and the head of the table.
struct Header<'a>(&'a Machine);

impl std::fmt::Display for Header<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { limits, threads, cpu_level, card } = self.0;
        writeln!(f, "{}, level {cpu_level}", count(*threads, "thread"))?;
        if let Some(card) = card {
            writeln!(f, "on {}, {}\n", card.name, card.kind)?;
        }
        if let Some(limits) = limits {
            write!(f, "{limits}")?;
        }
        writeln!(
            f,
            "{:14} {:6} {:>6} {:>10} {:6} {:>6}  half of the readings",
            "", "format", "size", "value", "unit", "share"
        )
    }
}

impl std::fmt::Display for FormatLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\nmeasured anew for {}:\n{}", self.format, self.limits)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, format, size, value, quartiles: [low, high], readings, unit, share } = self;
        let share = share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share));
        write!(f, "{name:14} {format:6} {size:6} {value:10.2} {unit:6} {share:>6}")?;
        if *readings > 1 {
            write!(f, "  {low:.2} to {high:.2}")?;
        }
        writeln!(f)
    }
}
