//! Products of small matrices: `usmmla` and `bfmmla`. So far all of it is [`dotprod`](super::dotprod)'s.

/// The level `i8mm`.
pub(crate) const KERNELS: crate::cpu::table::Kernels = super::dotprod::KERNELS;
