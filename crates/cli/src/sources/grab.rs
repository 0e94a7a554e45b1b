//! Pictures from the clipboard and of the screen, taken with the system's own tools.

use crate::documents::{output_of, private_folder};
use crate::sys::{DESKTOP, Desktop, PROGRAM_ENDING};
use crate::variables::variable;
use base64::Engine;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Time limit for a tool: some tools ask the user for permission.
const TIME_MAX: Duration = Duration::from_secs(30);

/// A source of a picture other than a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grab {
    /// The current content of the clipboard.
    Clipboard,
    /// The screen as it is now.
    Screen,
}

/// Why no picture could be taken.
#[derive(Debug, thiserror::Error)]
pub enum GrabError {
    /// There is no clipboard or screen.
    #[error("there is no {0} here: neither WAYLAND_DISPLAY nor DISPLAY is set")]
    NoDisplay(Grab),
    /// The necessary program is not installed.
    #[error("the {grab} needs the program {program}, which is not installed")]
    NoTool {
        /// The requested source.
        grab: Grab,
        /// The missing program.
        program: &'static str,
        /// The package that contains it.
        package: &'static str,
    },
    /// The program could not be run, or exceeded its time limit.
    #[error("{program} failed: {}", crate::paths::system_words(.error))]
    Failed {
        /// The program that was run.
        program: &'static str,
        /// What went wrong.
        error: io::Error,
    },
    /// The program returned no picture.
    #[error("{program} gave no picture of the {grab}")]
    Nothing {
        /// The requested source.
        grab: Grab,
        /// The program that was run.
        program: &'static str,
    },
}

impl GrabError {
    /// Returns what the user can do about the error, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoDisplay(_) => "save the picture to a file, and name that".to_owned(),
            Self::NoTool { grab: Grab::Screen, package, .. } => {
                format!("install {package}, or save a screenshot to a file (Print key) and name that")
            }
            Self::NoTool { package, .. } => {
                format!("install {package}, or save the picture to a file and name that")
            }
            Self::Failed { .. } => "save the picture to a file, and name that".to_owned(),
            Self::Nothing { grab: Grab::Clipboard, .. } => {
                "copy a picture first, and not the file that it is in".to_owned()
            }
            Self::Nothing { grab: Grab::Screen, .. } => {
                "allow it to record the screen, or save a screenshot to a file and name that".to_owned()
            }
        }
    }
}

impl std::fmt::Display for Grab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clipboard => "clipboard",
            Self::Screen => "screen",
        })
    }
}

/// How a program returns its picture.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    /// As a file on its stdout.
    Stdout,
    /// In the file whose name is its last argument.
    File,
    /// As base64 text on its stdout.
    Base64,
    /// As hexadecimal text on its stdout, as AppleScript prints data: `«data PNGf89504E47...»`.
    AppleScript,
}

/// A program that takes a picture.
struct Tool {
    program: &'static str,
    arguments: &'static [&'static str],
    package: &'static str,
    through: Through,
}

const WL_PASTE: Tool = Tool {
    program: "wl-paste",
    arguments: &["--type", "image/png"],
    package: "wl-clipboard",
    through: Through::Stdout,
};
const XCLIP: Tool = Tool {
    program: "xclip",
    arguments: &["-selection", "clipboard", "-target", "image/png", "-out"],
    package: "xclip",
    through: Through::Stdout,
};
const PNGPASTE: Tool =
    Tool { program: "pngpaste", arguments: &["-"], package: "pngpaste", through: Through::Stdout };
const OSASCRIPT: Tool = Tool {
    program: "osascript",
    arguments: &["-e", "get the clipboard as «class PNGf»"],
    package: "pngpaste",
    through: Through::AppleScript,
};
const POWERSHELL_PASTE: Tool = Tool {
    program: "powershell",
    arguments: &[
        "-NoProfile",
        "-Sta",
        "-Command",
        "Add-Type -AssemblyName System.Windows.Forms, System.Drawing; \
         $i = [Windows.Forms.Clipboard]::GetImage(); if ($i) { $m = New-Object IO.MemoryStream; \
         $i.Save($m, [Drawing.Imaging.ImageFormat]::Png); [Convert]::ToBase64String($m.ToArray()) }",
    ],
    package: "PowerShell",
    through: Through::Base64,
};
/// The programs that capture the screen under Wayland; each desktop has its own.
const OF_WAYLAND: &str = "grim (Sway, Hyprland and their like), gnome-screenshot (GNOME) or spectacle (KDE)";
const GRIM: Tool = Tool { program: "grim", arguments: &["-"], package: OF_WAYLAND, through: Through::Stdout };
const GNOME_SCREENSHOT: Tool =
    Tool { program: "gnome-screenshot", arguments: &["-f"], package: OF_WAYLAND, through: Through::File };
const SPECTACLE: Tool =
    Tool { program: "spectacle", arguments: &["-bno"], package: OF_WAYLAND, through: Through::File };
const SCROT: Tool =
    Tool { program: "scrot", arguments: &["--overwrite"], package: "scrot", through: Through::File };
const SCREENCAPTURE: Tool =
    Tool { program: "screencapture", arguments: &["-x"], package: "screencapture", through: Through::File };
const POWERSHELL_SCREEN: Tool = Tool {
    program: "powershell",
    arguments: &[
        "-NoProfile",
        "-Sta",
        "-Command",
        "Add-Type -AssemblyName System.Windows.Forms, System.Drawing; \
         $s = [Windows.Forms.SystemInformation]::VirtualScreen; \
         $i = New-Object Drawing.Bitmap $s.Width, $s.Height; \
         [Drawing.Graphics]::FromImage($i).CopyFromScreen($s.Location, [Drawing.Point]::Empty, $s.Size); \
         $m = New-Object IO.MemoryStream; $i.Save($m, [Drawing.Imaging.ImageFormat]::Png); \
         [Convert]::ToBase64String($m.ToArray())",
    ],
    package: "PowerShell",
    through: Through::Base64,
};

impl Grab {
    /// Takes the picture and returns the bytes of its file, cut at one byte more than `bytes_max`.
    ///
    /// # Errors
    /// The tool is missing, fails, or returns no picture.
    pub fn take(self, bytes_max: usize) -> Result<Vec<u8>, GrabError> {
        let tools = self.tools(DESKTOP, |name| variable(name).is_some())?;
        let preferred = tools.first().ok_or(GrabError::NoDisplay(self))?;
        let mut failed = None;
        for tool in tools.iter().filter(|tool| find(tool.program).is_some()) {
            match self.take_by(tool, bytes_max) {
                // no desktop's tool can take another's screen, but any may be installed there
                Err(error) if self == Self::Screen => failed = failed.or(Some(error)),
                taken => return taken,
            }
        }
        let Tool { program, package, .. } = *preferred;
        Err(failed.unwrap_or(GrabError::NoTool { grab: self, program, package }))
    }

    fn take_by(self, tool: &Tool, bytes_max: usize) -> Result<Vec<u8>, GrabError> {
        let program = tool.program;
        let bytes = tool.run(bytes_max).map_err(|error| GrabError::Failed { program, error })?;
        if bytes.is_empty() { Err(GrabError::Nothing { grab: self, program }) } else { Ok(bytes) }
    }

    /// The tools of a desktop, the preferred one first. `is_set` says whether a variable that names a display is set.
    fn tools(self, desktop: Desktop, is_set: impl Fn(&str) -> bool) -> Result<&'static [Tool], GrabError> {
        Ok(match (self, desktop) {
            (Self::Clipboard, Desktop::Macos) => &[PNGPASTE, OSASCRIPT],
            (Self::Screen, Desktop::Macos) => &[SCREENCAPTURE],
            (Self::Clipboard, Desktop::Windows) => &[POWERSHELL_PASTE],
            (Self::Screen, Desktop::Windows) => &[POWERSHELL_SCREEN],
            // both have the same clipboard, but different screens
            (Self::Clipboard, Desktop::Server) if is_set("WAYLAND_DISPLAY") && is_set("DISPLAY") => {
                &[WL_PASTE, XCLIP]
            }
            (Self::Clipboard, Desktop::Server) if is_set("WAYLAND_DISPLAY") => &[WL_PASTE],
            (Self::Screen, Desktop::Server) if is_set("WAYLAND_DISPLAY") => {
                &[GRIM, GNOME_SCREENSHOT, SPECTACLE]
            }
            (Self::Clipboard, Desktop::Server) if is_set("DISPLAY") => &[XCLIP],
            (Self::Screen, Desktop::Server) if is_set("DISPLAY") => &[SCROT],
            (_, Desktop::Server) => return Err(GrabError::NoDisplay(self)),
        })
    }
}

impl Tool {
    fn run(&self, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut command = Command::new(self.program);
        command.args(self.arguments);
        if self.through == Through::File {
            let folder = private_folder()?;
            let file = folder.path().join("picture.png");
            output_of(command.arg(&file), TIME_MAX, bytes_max)?;
            return match std::fs::File::open(&file) {
                Ok(file) => phi3v::files::read_to_limit(file, bytes_max),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        // as text, a file takes at most two characters per byte
        let output = output_of(&mut command, TIME_MAX, bytes_max.saturating_mul(2).saturating_add(64))?;
        Ok(match self.through {
            Through::Base64 => decoded_base64(&output),
            Through::AppleScript => decoded_hexadecimal(&output),
            Through::Stdout | Through::File => output,
        })
    }
}

/// Decodes base64 text. Returns no bytes if the text is not base64.
fn decoded_base64(text: &[u8]) -> Vec<u8> {
    base64::prelude::BASE64_STANDARD.decode(text.trim_ascii()).unwrap_or_default()
}

/// Decodes the hexadecimal digits after `PNGf`. Returns no bytes if there are none.
fn decoded_hexadecimal(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let digits = text.split_once("PNGf").map_or("", |(_, digits)| digits);
    let digits: Vec<u8> = digits.chars().map_while(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Finds a program in the folders of PATH.
fn find(program: &str) -> Option<PathBuf> {
    let name = format!("{program}{PROGRAM_ENDING}");
    let path = variable("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(&name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_desktop_has_its_tools() {
        let programs = |grab: Grab, desktop, display: &str| {
            grab.tools(desktop, |name| name == display)
                .map(|tools| tools.iter().map(|tool| tool.program).collect::<Vec<_>>())
        };
        for (desktop, display, clipboard, screen) in [
            (Desktop::Macos, "", &["pngpaste", "osascript"][..], &["screencapture"][..]),
            (Desktop::Windows, "", &["powershell"], &["powershell"]),
            (Desktop::Server, "WAYLAND_DISPLAY", &["wl-paste"], &["grim", "gnome-screenshot", "spectacle"]),
            (Desktop::Server, "DISPLAY", &["xclip"], &["scrot"]),
        ] {
            assert_eq!(programs(Grab::Clipboard, desktop, display).unwrap(), clipboard);
            assert_eq!(programs(Grab::Screen, desktop, display).unwrap(), screen);
        }
        let both =
            |grab: Grab| grab.tools(Desktop::Server, |_| true).unwrap().iter().map(|tool| tool.program);
        assert_eq!(both(Grab::Clipboard).collect::<Vec<_>>(), ["wl-paste", "xclip"]);
        assert_eq!(both(Grab::Screen).collect::<Vec<_>>(), ["grim", "gnome-screenshot", "spectacle"]);
        let none = programs(Grab::Screen, Desktop::Server, "").unwrap_err();
        assert!(matches!(none, GrabError::NoDisplay(Grab::Screen)), "{none}");
    }

    #[test]
    fn text_becomes_bytes() {
        assert_eq!(decoded_base64(b"iVBO\r\n"), [0x89, 0x50, 0x4e]);
        assert_eq!(decoded_hexadecimal("«data PNGf89504E»\n".as_bytes()), [0x89, 0x50, 0x4e]);
        for nothing in ["", "missing value", "execution error: can't make it"] {
            assert!(decoded_hexadecimal(nothing.as_bytes()).is_empty());
        }
        assert!(decoded_base64(b"no base64!").is_empty());
    }
}
