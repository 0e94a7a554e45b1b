//! Graphics cards, as people are told of them.

use super::gpu;
use std::time::Duration;

/// A graphics card of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number in [`cards`], as `gpu:1` names it: two cards may have one name.
    pub number: usize,
    /// Its name, from its driver.
    pub name: String,
    /// `discrete`, `integrated`, `software` or `other`; software is the processor, for tests.
    pub kind: String,
    /// What it is driven by: Vulkan, Metal or Dx12.
    pub api: String,
    /// Name and version of its driver.
    pub driver: String,
    /// Bytes of its memory; `None` where the driver does not tell, as where it is the processor's.
    pub memory_bytes: Option<u64>,
    /// Bytes of that which this program can have for sure at this moment: a few hundred million less than are free.
    pub available_bytes: Option<u64>,
    /// Largest buffer that a kernel can see, in bytes.
    pub binding_bytes_max: u64,
    /// Memory of a workgroup, in bytes.
    pub workgroup_bytes: u32,
    /// Rows and columns of a tile of its matrix units, where the kernels can use them.
    pub matrix_units: Option<u32>,
    /// Why an opened card runs without the matrix units that it has: the first operation whose result was wrong, or what the
    /// driver said. `None` where they are not at fault, and of a card that was not opened.
    pub matrix_units_fault: Option<String>,
    /// What a product of many rows takes on an opened card by its matrix units and without them, where they compute rightly: the
    /// faster way is taken. `None` of a card that was not opened, and of one without such units.
    pub many_rows_times: Option<ManyRowsTimes>,
    /// The first operation whose rows have other bits on an opened card by one kernel than by another, though both are right: an
    /// answer may then depend on how its prompt was cut. `None` where all is as promised, and of a card that was not opened.
    pub bits_differ: Option<String>,
}

/// What a product of many rows, as of a prompt, takes on a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManyRowsTimes {
    /// Made by products of four integers at a time.
    pub dot4: Duration,
    /// Made by the card's matrix units.
    pub units: Duration,
}

/// All graphics cards of this machine, the best first, those in software last. None where no driver is installed, or where
/// this build runs on no card.
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

/// What was done with a part of the support of graphics cards before this version was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The cards or drivers it was tried on.
    pub on: &'static str,
    /// What was run there, or was not.
    pub what: &'static str,
}

/// What was tried of the support of graphics cards, and what was not: a card that is not named here ran none of it.
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
