# Installs phi3v for this user, on Windows:
#
#     irm https://github.com/phi3v/phi3v/releases/latest/download/install.ps1 | iex
#
# The archive is checked against the release's SHA-256 sums before anything is put anywhere. PHI3V_VERSION names a version,
# PHI3V_INSTALL_DIR the folder of the program (%LOCALAPPDATA%\Programs\phi3v), PHI3V_DOWNLOAD another place that has a
# release's files.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

function Install-Phi3v {
    $target = 'x86_64-pc-windows-gnu'
    if (-not [Environment]::Is64BitOperatingSystem) { throw 'phi3v needs 64-bit Windows' }
    $releases = 'https://github.com/phi3v/phi3v/releases'
    $place = if ($env:PHI3V_DOWNLOAD) { $env:PHI3V_DOWNLOAD }
    elseif ($env:PHI3V_VERSION) { "$releases/download/v$env:PHI3V_VERSION" }
    else { "$releases/latest/download" }
    $folder = if ($env:PHI3V_INSTALL_DIR) { $env:PHI3V_INSTALL_DIR } else { "$env:LOCALAPPDATA\Programs\phi3v" }
    $work = Join-Path ([IO.Path]::GetTempPath()) ([Guid]::NewGuid())
    New-Item -ItemType Directory -Path $work | Out-Null
    try {
        Invoke-WebRequest -UseBasicParsing "$place/SHA256SUMS" -OutFile "$work\SHA256SUMS"
        $sums = [IO.File]::ReadAllText("$work\SHA256SUMS")
        $found = [regex]::Match($sums, "(?m)^([0-9a-f]{64})  (phi3v-[^/\\\s]+-$target)\.zip\r?$")
        if (-not $found.Success) { throw "the release has no archive for $target" }
        $sum, $name = $found.Groups[1].Value, $found.Groups[2].Value
        Invoke-WebRequest -UseBasicParsing "$place/$name.zip" -OutFile "$work\$name.zip"
        if ((Get-FileHash "$work\$name.zip" -Algorithm SHA256).Hash -ne $sum) {
            throw "$name.zip is damaged: its SHA-256 sum is not the release's"
        }
        Expand-Archive "$work\$name.zip" $work
        New-Item -ItemType Directory -Force -Path $folder | Out-Null
        Copy-Item -Force "$work\$name\phi3v.exe" "$folder\phi3v.exe"
    }
    finally { Remove-Item -Recurse -Force $work }
    & "$folder\phi3v.exe" --version
    $path = [Environment]::GetEnvironmentVariable('Path', 'User')
    if (($path -split ';') -notcontains $folder) {
        [Environment]::SetEnvironmentVariable('Path', "$path;$folder", 'User')
        Write-Output "$folder was put on the path; open a new terminal for it"
    }
    Write-Output "installed in $folder"
}

Install-Phi3v
