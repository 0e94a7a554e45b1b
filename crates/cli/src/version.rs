//! The build's version, for fault reports and to tell two programs apart.

use std::sync::LazyLock;

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that the program was built from, in 12 hexadecimal digits; `None` if the build did not know it, and in builds of
/// cargo's dev profile.
pub const COMMIT: Option<&str> = option_env!("PHI3V_BUILD_COMMIT");

/// Optional features of this build, by their names in `Cargo.toml`.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "avif")]
    "avif",
    #[cfg(feature = "gpu")]
    "gpu",
    #[cfg(feature = "heic")]
    "heic",
    #[cfg(feature = "parquet")]
    "parquet",
    #[cfg(feature = "pdf")]
    "pdf",
];

/// What `phi3v --version` prints after the program's name: `0.2.0 (0123456789ab; avif, gpu, heic, pdf)`.
#[must_use]
pub fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        let commit = COMMIT.unwrap_or("no commit");
        let features = if FEATURES.is_empty() { "no features".to_owned() } else { FEATURES.join(", ") };
        format!("{VERSION} ({commit}; {features})")
    });
    &LONG
}
