//! The device that runs the model, chosen when the program runs: one type for all that this build knows.
//!
//! [`Device`] is a [`Backend`] that hands each operation to the device that it holds. Everything above the model uses it
//! and names no device of its own; the model and the engine stay generic. A further device is one more line of
//! `devices!`, with a [`DeviceChoice`] that asks for it.

mod backend;
mod card;
mod choice;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "no_gpu.rs"]
mod gpu;
mod handles;

/// The devices of this build, a line each, put before the rest of a macro's input: the one list from which the enums of
/// this module are made. A line may begin with `#[cfg(...)]`.
macro_rules! devices {
    ($then:ident! { $($rest:tt)* }) => {
        $then! { [
            Cpu(phi3v_kernels::Cpu),
            #[cfg(feature = "gpu")]
            Gpu(phi3v_gpu::Gpu),
        ] $($rest)* }
    };
}
use devices;

pub use card::{Card, ManyRowsTimes, TRIED, Tried, cards};
pub use choice::{DeviceChoice, DeviceError};
pub use handles::{DeviceBatch, DeviceKvPool, DeviceLinear, DeviceTable, DeviceTensor, DeviceVector};

use phi3v_kernels::{Cpu, CpuLevel, CpuOptions, Processor};
use std::fmt;
use std::path::PathBuf;

macro_rules! device {
    ([$($(#[$cfg:meta])* $variant:ident($backend:ty),)+] $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[allow(clippy::large_enum_variant, reason = "a program has one or two")]
        pub enum $name {
            $(
                $(#[$cfg])*
                #[doc = concat!("A [`", stringify!($variant), "`](", stringify!($backend), ").")]
                $variant($backend),
            )+
        }
    };
}

devices!(device! {
    /// A device that was opened, whichever it is.
    ///
    /// Its tensors, weights and caches are for it alone: an operation panics on those of a device of another kind, as on
    /// shapes that do not fit, for both are errors of the model text.
    ///
    /// ```
    /// use phi3v::device::{Device, DeviceOptions};
    /// use phi3v::kernels::Backend;
    ///
    /// let options = DeviceOptions { choice: "cpu".parse()?, threads: Some(2), ..DeviceOptions::default() };
    /// let device = Device::open(&options)?;
    /// assert_eq!(device.cpu().map(|cpu| cpu.threads()), Some(2));
    /// assert_eq!(device.shape(&device.tensor(3, 4)?), (3, 4));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    Device
});

/// Which device runs the model, and how; the defaults suit nearly everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// The device, as people name it.
    pub choice: DeviceChoice,
    /// Threads of the processor; `None` is one per physical core, the little cores of a mixed processor not counted.
    pub threads: Option<usize>,
    /// Instructions of the processor that may be used; `None` is the best level that it has.
    pub cpu_level: Option<CpuLevel>,
    /// Folder for what is kept of a graphics card: its compiled kernels, and that they compute rightly. Both are made anew
    /// each time if `None`.
    pub gpu_cache: Option<PathBuf>,
}

impl DeviceOptions {
    /// What these options would use of this machine's processor, whichever device they choose.
    ///
    /// # Errors
    /// [`DeviceError::Cpu`]: a level that the processor lacks, or a number of threads out of range.
    pub fn processor(&self) -> Result<Processor, DeviceError> {
        Ok(Processor::of(&self.of_processor())?)
    }

    fn of_processor(&self) -> CpuOptions {
        CpuOptions { threads: self.threads, level: self.cpu_level }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.card().map(|card| card.name);
        f.debug_struct("Device").field("card", &name).finish_non_exhaustive()
    }
}

impl Device {
    /// Opens the device of these options.
    ///
    /// # Errors
    /// [`DeviceError`]: it is not there, or cannot run as asked.
    pub fn open(options: &DeviceOptions) -> Result<Self, DeviceError> {
        Self::open_telling(options, &mut |_| {})
    }

    /// As [`open`](Self::open); `tell` hears in a sentence of a graphics card that is there and cannot be used, where the
    /// choice is free.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_telling(options: &DeviceOptions, tell: &mut dyn FnMut(&str)) -> Result<Self, DeviceError> {
        match options.choice.made()? {
            DeviceChoice::Cpu => Self::processor(options),
            DeviceChoice::Auto | DeviceChoice::Variable => {
                gpu::automatic(options, tell).map_or_else(|| Self::processor(options), Ok)
            }
            choice @ (DeviceChoice::Gpu(_) | DeviceChoice::Named(_)) => gpu::open(&choice, options),
        }
    }

    /// The processor, whatever the options choose.
    ///
    /// # Errors
    /// [`DeviceError::Cpu`].
    pub fn processor(options: &DeviceOptions) -> Result<Self, DeviceError> {
        Ok(Self::Cpu(Cpu::new(&options.of_processor())?))
    }

    /// The processor, where it is the device: for what only a processor has, as its level and its threads.
    #[must_use]
    pub fn cpu(&self) -> Option<&Cpu> {
        #[allow(irrefutable_let_patterns, reason = "in a build without other devices")]
        let Self::Cpu(cpu) = self else { return None };
        Some(cpu)
    }

    /// The graphics card, where one is the device.
    #[must_use]
    pub fn card(&self) -> Option<Card> {
        gpu::card(self)
    }
}

/// The device that unit tests run on.
#[cfg(test)]
pub(crate) fn test_device() -> Device {
    let choice = phi3v_kernels::testing::test_device().parse().unwrap();
    Device::open(&DeviceOptions { choice, ..DeviceOptions::default() }).unwrap()
}
