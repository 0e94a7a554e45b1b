//! Graphics cards, as they are described to users.

use super::gpu;
use std::time::Duration;

/// A graphics card of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number in [`cards`], as in `gpu:1`; two cards may have the same name.
    pub number: usize,
    /// The name that its driver reports.
    pub name: String,
    /// `discrete`, `integrated`, `software` or `other`. A software card runs on the processor and is for tests.
    pub kind: String,
    /// The API that drives it: Vulkan, Metal or Dx12.
    pub api: String,
    /// Name and version of its driver.
    pub driver: String,
    /// Bytes of its memory. `None` if the driver does not report them, or if the card shares the processor's memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of that memory that this program can certainly have now: a few hundred million fewer than are free.
    pub available_bytes: Option<u64>,
    /// Largest buffer that a kernel can see, in bytes.
    pub binding_bytes_max: u64,
    /// Memory of a workgroup, in bytes.
    pub workgroup_bytes: u32,
    /// Rows and columns of a tile of its matrix units, if the kernels can use them.
    pub matrix_units: Option<u32>,
    /// Why an opened card runs without the matrix units that it has: the first operation with a wrong result, or the
    /// driver's message. `None` if the units have no fault, and for a card that was not opened.
    pub matrix_units_fault: Option<String>,
    /// How long a product of many rows takes on an opened card, with its matrix units and without them, if the units
    /// compute correctly; the faster way is used. `None` for a card that was not opened, and for one without such units.
    pub many_rows_times: Option<ManyRowsTimes>,
    /// The first operation for which two kernels of an opened card give rows with different bits, though both are right.
    /// An answer may then depend on how its prompt was cut. `None` if all bits are equal, and for a card that was not
    /// opened.
    pub bits_differ: Option<String>,
}

/// How long a product of many rows, such as a prompt's, takes on a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManyRowsTimes {
    /// With products of four integers at a time.
    pub dot4: Duration,
    /// With the card's matrix units.
    pub units: Duration,
}

/// All graphics cards of this machine, the best first, those in software last. Empty if no driver is installed, or if
/// this build supports no cards.
///
/// ```
/// for (number, card) in phi3v::device::cards().iter().enumerate() {
///     println!("gpu:{number} {} ({})", card.name, card.kind);
/// }
/// ```
#[must_use]
pub fn cards() -> Vec<Card> {
    gpu::cards()
}

/// How a part of the support for graphics cards was tested before this version was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The cards or drivers that it was tested on.
    pub on: &'static str,
    /// What was run there, or was not.
    pub what: &'static str,
}

/// Which parts of the support for graphics cards were tested, and which were not. A card that is not named here ran none
/// of the tests.
///
/// ```
/// assert!(phi3v::device::TRIED.iter().any(|tried| tried.what.starts_with("nothing")));
/// ```
pub const TRIED: [Tried; 4] = [
    Tried {
        on: "software Vulkan (Mesa 25.0.7 and 26.1.6, lavapipe)",
        what: "every kernel against the processor's; the built-in model, word for word in bf16 and q8 (25.0.7)",
    },
    Tried {
        on: "matrix units",
        what: "tiles of 8 in software (Mesa 26.1.6), with the bits of the other kernels; on no card, but each is tried before it is used",
    },
    Tried {
        on: "Metal, DirectX 12",
        what: "nothing; the kernels are translated for both, DirectX without matrix units",
    },
    Tried { on: "cards of NVIDIA, AMD, Intel and Apple", what: "nothing; nor is their speed known" },
];
