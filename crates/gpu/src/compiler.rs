//! The compilers of kernels for DirectX 12. By default wgpu lets Windows search for `dxcompiler.dll`, also in the
//! current folder and in those of `PATH`, where anybody may have put one. So the compiler is named by its full path,
//! next to the program, or not used.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A compiler of kernels for DirectX 12.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// Microsoft's newer compiler, as a file of the user.
    Dxc {
        /// Its full path.
        path: String,
        /// Size of the file in bytes.
        bytes: u64,
        modified: Option<SystemTime>,
    },
    /// The older compiler, which is part of Windows.
    Fxc,
}

impl Compiler {
    /// Returns the available compilers, the better one first. If wgpu refuses it, for example as too old, the next is
    /// used.
    pub(crate) fn all() -> Vec<Self> {
        let folder = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
        folder.and_then(|folder| Self::within(&folder)).into_iter().chain([Self::Fxc]).collect()
    }

    /// Returns the newer compiler if its file is in `folder`.
    fn within(folder: &Path) -> Option<Self> {
        let path: PathBuf = folder.join("dxcompiler.dll");
        // Windows searches for a relative path in other folders
        let metadata = path.is_absolute().then(|| path.metadata().ok())??;
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        let path = path.to_str().filter(|_| metadata.is_file())?.to_owned();
        Some(Self::Dxc { path, bytes, modified })
    }

    /// Returns wgpu's options for this compiler.
    pub(crate) fn options(&self) -> wgpu::Dx12BackendOptions {
        let shader_compiler = match self {
            Self::Dxc { path, .. } => wgpu::Dx12Compiler::DynamicDxc { dxc_path: path.clone() },
            Self::Fxc => wgpu::Dx12Compiler::Fxc,
        };
        wgpu::Dx12BackendOptions { shader_compiler, ..Default::default() }
    }

    /// Returns a key that distinguishes compilers in the cache of compiled kernels.
    pub(crate) fn key(&self) -> String {
        format!("{self:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_is_taken_from_beside_the_program_and_from_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let within = || Compiler::within(folder.path());
        let file = folder.path().join("dxcompiler.dll");
        assert_eq!(within(), None);
        std::fs::create_dir(&file).unwrap();
        assert_eq!(within(), None, "a folder of that name");
        std::fs::remove_dir(&file).unwrap();
        std::fs::write(&file, "one").unwrap();
        let one = within().unwrap();
        let wgpu::Dx12Compiler::DynamicDxc { dxc_path } = one.options().shader_compiler else {
            panic!("{one:?}")
        };
        assert_eq!(Path::new(&dxc_path), file);
        // another file of the same name is another compiler
        std::fs::write(&file, "another").unwrap();
        let another = within().unwrap();
        assert!(one.key() != another.key() && one.key() != Compiler::Fxc.key());
        // a relative path, which would be searched for in the folders of PATH
        assert_eq!(Compiler::within(Path::new("")), None);
    }

    #[test]
    fn the_compiler_of_windows_is_always_there() {
        let all = Compiler::all();
        assert_eq!(all.last(), Some(&Compiler::Fxc));
        for compiler in all {
            // as wgpu's own choice would be
            assert!(!matches!(compiler.options().shader_compiler, wgpu::Dx12Compiler::Auto));
        }
    }
}
