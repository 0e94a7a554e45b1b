//! What compiles kernels for DirectX 12. Left to itself wgpu has Windows look for `dxcompiler.dll`, in the current folder and those of
//! `PATH` too, where anybody may have put one: so it is named by its whole path, beside the program, or not at all.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A compiler of kernels for DirectX 12.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// Microsoft's newer one, as a file of the user's.
    Dxc {
        /// Its whole path.
        path: String,
        /// Bytes of the file.
        bytes: u64,
        modified: Option<SystemTime>,
    },
    /// The older one, which is part of Windows.
    Fxc,
}

impl Compiler {
    /// Those there are, the better one first; should wgpu refuse it, as where it is too old, the next is to be taken.
    pub(crate) fn all() -> Vec<Self> {
        let folder = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
        folder.and_then(|folder| Self::within(&folder)).into_iter().chain([Self::Fxc]).collect()
    }

    /// The newer one, where its file lies in `folder`.
    fn within(folder: &Path) -> Option<Self> {
        let path: PathBuf = folder.join("dxcompiler.dll");
        // what is not absolute Windows looks for elsewhere
        let metadata = path.is_absolute().then(|| path.metadata().ok())??;
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        let path = path.to_str().filter(|_| metadata.is_file())?.to_owned();
        Some(Self::Dxc { path, bytes, modified })
    }

    /// How wgpu is told.
    pub(crate) fn options(&self) -> wgpu::Dx12BackendOptions {
        let shader_compiler = match self {
            Self::Dxc { path, .. } => wgpu::Dx12Compiler::DynamicDxc { dxc_path: path.clone() },
            Self::Fxc => wgpu::Dx12Compiler::Fxc,
        };
        wgpu::Dx12BackendOptions { shader_compiler, ..Default::default() }
    }

    /// What tells it from another, for what is kept of kernels that it compiled.
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
        // another is another, though it has the same name
        std::fs::write(&file, "another").unwrap();
        let another = within().unwrap();
        assert!(one.key() != another.key() && one.key() != Compiler::Fxc.key());
        // which would be looked for in the folders of PATH
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
