# Installs phi3v for this user, on Windows:
#
#     irm https://github.com/phi3v/phi3v/releases/latest/download/install.ps1 | iex
#
# The archive is checked against the release's SHA-256 sums before anything is put anywhere. PHI3V_VERSION names a version,
# PHI3V_INSTALL_DIR the folder of the program (%LOCALAPPDATA%\Programs\phi3v), PHI3V_DOWNLOAD another place that has a
# release's files. Runs in Windows PowerShell 5.1 and later.

# a block of its own, since iex would leave preferences and functions in the user's session
& {
    $ErrorActionPreference = 'Stop'
    $ProgressPreference = 'SilentlyContinue'

    function Get-Target {
        # of the machine itself: programs that Windows translates are told of the processor that they were made for
        $system = 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager\Environment'
        $machine = (Get-ItemProperty $system).PROCESSOR_ARCHITECTURE
        switch ($machine) {
            'AMD64' { 'x86_64-pc-windows-gnu' }
            'ARM64' { 'aarch64-pc-windows-msvc' }
            default { throw "there is no program for $machine; build it from the source" }
        }
    }

    function Add-ToPath([string] $folder) {
        $key = [Microsoft.Win32.Registry]::CurrentUser.CreateSubKey('Environment')
        try {
            # as it is written there: Environment.GetEnvironmentVariable would put values for the %NAMES% in it
            $path = $key.GetValue('Path', '', [Microsoft.Win32.RegistryValueOptions]::DoNotExpandEnvironmentNames)
            $parts = @($path -split ';' | Where-Object { $_ })
            $folders = @($parts | ForEach-Object { [Environment]::ExpandEnvironmentVariables($_).TrimEnd('\') })
            if ($folders -contains $folder.TrimEnd('\')) { return }
            $path = ($parts + $folder) -join ';'
            $key.SetValue('Path', $path, [Microsoft.Win32.RegistryValueKind]::ExpandString)
        }
        finally { $key.Dispose() }
        # the registry tells nobody of a change; setting a variable tells every window
        [Environment]::SetEnvironmentVariable('PHI3V_INSTALLER', 'done', 'User')
        [Environment]::SetEnvironmentVariable('PHI3V_INSTALLER', [NullString]::Value, 'User')
        Write-Output "$folder was put on the path; open a new terminal for it"
    }

    function Set-Program([string] $new, [string] $program) {
        $folder = Split-Path $program
        Remove-Item -Force -ErrorAction SilentlyContinue "$folder\phi3v.old-*.exe"
        $old = "$folder\phi3v.old-$PID.exe"
        # a program that runs can be renamed, and not be written over
        if (Test-Path -LiteralPath $program) { Move-Item -LiteralPath $program $old }
        try { Move-Item -LiteralPath $new $program }
        catch {
            if (Test-Path -LiteralPath $old) { Move-Item -LiteralPath $old $program }
            throw
        }
        Remove-Item -Force -ErrorAction SilentlyContinue $old
    }

    function Install-Phi3v {
        $target = Get-Target
        $releases = 'https://github.com/phi3v/phi3v/releases'
        $place = if ($env:PHI3V_DOWNLOAD) { $env:PHI3V_DOWNLOAD }
        elseif ($env:PHI3V_VERSION) { "$releases/download/v$($env:PHI3V_VERSION.TrimStart('v'))" }
        else { "$releases/latest/download" }
        $folder = if ($env:PHI3V_INSTALL_DIR) { $env:PHI3V_INSTALL_DIR } else { "$env:LOCALAPPDATA\Programs\phi3v" }
        # the path keeps it for good, whatever folder is the current one then
        $folder = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($folder)
        if (Test-Path -LiteralPath "$folder\phi3v.exe" -PathType Container) {
            throw "$folder\phi3v.exe is a folder; name another place in PHI3V_INSTALL_DIR"
        }
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
            # named, since this one is written in PowerShell and does not see the preference above
            Expand-Archive "$work\$name.zip" $work -ErrorAction Stop
            New-Item -ItemType Directory -Force -Path $folder | Out-Null
            $new = "$folder\phi3v.new.exe"
            try {
                Copy-Item -Force "$work\$name\phi3v.exe" $new
                & $new --version
                if ($LASTEXITCODE -ne 0) {
                    throw "the program does not run on this machine: it ended with $LASTEXITCODE, and nothing was changed; build it from the source"
                }
                Set-Program $new "$folder\phi3v.exe"
            }
            finally { Remove-Item -Force -ErrorAction SilentlyContinue $new }
        }
        # a scanner may hold a file of it; what is installed is to go on the path all the same
        finally { Remove-Item -Recurse -Force -ErrorAction SilentlyContinue $work }
        Add-ToPath $folder
        Write-Output "installed in $folder"
    }

    Install-Phi3v
}
