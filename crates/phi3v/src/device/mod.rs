//! The device that runs the model, chosen at run time: one type for all devices that this build supports.
//!
//! [`Device`] is a `Backend` that forwards each operation to the device that it holds. Code above the model uses
//! `Device` and names no particular device; the model and the engine stay generic. To add a device, add a line to
//! `devices!` and a [`DeviceChoice`] that selects it.

mod backend;
mod card;
mod choice;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "no_gpu.rs"]
mod gpu;
mod handles;

/// Passes the devices of this build, one per line, to a macro, ahead of the rest of its input. The enums of this module
/// are all made from this list. A line may begin with `#[cfg(...)]`.
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
                #[doc = concat!("A `", stringify!($variant), "`.")]
                $variant($backend),
            )+
        }
    };
}

devices!(device! {
    /// An opened device of any kind.
    ///
    /// Its tensors, weights and caches belong to it alone. Operations panic on those of a device of another kind, as they
    /// do on shapes that do not fit, since both are bugs of the caller.
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

/// Which device runs the model, and how; the defaults suit nearly everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// The chosen device.
    pub choice: DeviceChoice,
    /// Threads of the processor; `None` means one per physical core, excluding the efficiency cores of a hybrid
    /// processor.
    pub threads: Option<usize>,
    /// The level of the processor's instructions to use; `None` means the best that it has.
    pub cpu_level: Option<CpuLevel>,
    /// Folder for a graphics card's compiled kernels and the result of its self-test. If `None`, both are made anew each
    /// time.
    pub gpu_cache: Option<PathBuf>,
}

impl DeviceOptions {
    /// How these options would use this machine's processor, whichever device they choose.
    ///
    /// # Errors
    /// [`DeviceError::Cpu`] for a level that the processor lacks, or a number of threads out of range.
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
    /// Opens the device that the options choose.
    ///
    /// # Errors
    /// [`DeviceError`] if the device does not exist or cannot run with these options.
    pub fn open(options: &DeviceOptions) -> Result<Self, DeviceError> {
        Self::open_telling(options, &mut |_| {})
    }

    /// Like [`open`](Self::open). If the choice is free, `tell` receives a sentence about a graphics card that exists and
    /// cannot be used.
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

    /// Opens the processor, whatever the options choose.
    ///
    /// # Errors
    /// [`DeviceError::Cpu`].
    pub fn processor(options: &DeviceOptions) -> Result<Self, DeviceError> {
        Ok(Self::Cpu(Cpu::new(&options.of_processor())?))
    }

    /// The processor, if it is the device: for properties that only a processor has, such as its level and threads.
    #[must_use]
    pub fn cpu(&self) -> Option<&Cpu> {
        #[allow(irrefutable_let_patterns, reason = "in a build without other devices")]
        let Self::Cpu(cpu) = self else { return None };
        Some(cpu)
    }

    /// The graphics card, if the device is one.
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
