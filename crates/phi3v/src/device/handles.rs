//! Data on a device: one enum for each of a backend's types.

use super::devices;
use phi3v_kernels::Backend;
use std::fmt;

/// Gives a device of type `B` its own tensor, weight, table, batch, vector or cache from a handle.
pub(super) trait Handle<B> {
    type Own;

    /// Returns the data that belongs to `device`.
    ///
    /// # Panics
    /// If the data is on a device of another kind.
    fn of(&self, device: &B) -> &Self::Own;

    /// Like [`of`](Self::of), but mutable.
    fn of_mut(&mut self, device: &B) -> &mut Self::Own;
}

#[cold]
fn of_another_device(what: &str) -> ! {
    panic!("a {what} of another device was given")
}

macro_rules! handle {
    ([$($(#[$cfg:meta])* $variant:ident($backend:ty),)+] $(#[$doc:meta])* $name:ident: $assoc:ident) => {
        $(#[$doc])*
        pub enum $name {
            $(
                $(#[$cfg])*
                #[doc = concat!("Of a `", stringify!($variant), "`.")]
                $variant(<$backend as Backend>::$assoc),
            )+
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }

        $(
            $(#[$cfg])*
            #[allow(irrefutable_let_patterns, reason = "in a build without other devices")]
            impl Handle<$backend> for $name {
                type Own = <$backend as Backend>::$assoc;

                fn of(&self, _device: &$backend) -> &Self::Own {
                    let Self::$variant(own) = self else { of_another_device(stringify!($assoc)) };
                    own
                }

                fn of_mut(&mut self, _device: &$backend) -> &mut Self::Own {
                    let Self::$variant(own) = self else { of_another_device(stringify!($assoc)) };
                    own
                }
            }
        )+
    };
}

devices!(handle! {
    /// f32 activations on a device, `[rows, cols]`, row-major.
    DeviceTensor: Tensor
});

devices!(handle! {
    /// A weight matrix on a device, with its bias if it has one.
    DeviceLinear: Linear
});

devices!(handle! {
    /// A table of rows on a device, `[vocab, hidden]`, looked up by number.
    DeviceTable: Table
});

devices!(handle! {
    /// Describes, in a device's form, which sequences' rows are in a batch and where their keys and values are stored.
    DeviceBatch: Batch
});

devices!(handle! {
    /// The weight or bias of a norm on a device, `[n]`.
    DeviceVector: Vector
});

devices!(handle! {
    /// Blocks of keys and values on a device, addressed by number.
    DeviceKvPool: KvPool
});
