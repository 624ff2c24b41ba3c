@echo off
rem Start Patina on Windows; install it first where that is needed.
rem
rem   patina.bat                   the studio, in the browser
rem   patina.bat train IMAGES ...  the command line; patina.bat --help lists it
rem   patina.bat test [...]        lint, types and the whole test suite; arguments go to pytest
rem   patina.bat test quick        lint and what answers within a minute: no browser, no training
rem
rem Needs Python 3.11, 3.12 or 3.13 (PATINA_PYTHON names one). Everything goes into .venv beside this
rem script. PATINA_TORCH_INDEX names another package index for torch.
rem It has no blocks in brackets around paths, because a path may hold a bracket itself.
setlocal EnableExtensions DisableDelayedExpansion
set "ROOT=%~dp0"
set "VENV=%ROOT%.venv"
set "PYTHON=%VENV%\Scripts\python.exe"
set "INSTALLING=%VENV%\patina-installing"
set "PYTORCH=https://download.pytorch.org/whl"
set "WANT=runtime"
if /i "%~1"=="test" set "WANT=dev"

rem Installed means: finished, in this folder (a .venv cannot be moved), from these two files.
if not exist "%PYTHON%" goto install
if exist "%INSTALLING%" goto install
set PLACE="none"
if exist "%VENV%\patina-%WANT%" set /p PLACE=<"%VENV%\patina-%WANT%"
if not %PLACE%=="%ROOT%" goto install
fc /b "%ROOT%pyproject.toml" "%VENV%\patina-pyproject.toml" >nul 2>&1 || goto install
fc /b "%ROOT%constraints.txt" "%VENV%\patina-constraints.txt" >nul 2>&1 || goto install

:start
if "%~1"=="" goto studio
if /i "%~1"=="test" goto test
"%VENV%\Scripts\patina.exe" %*
exit /b %ERRORLEVEL%

:studio
rem -P: a folder named app where the user stands must not be taken for ours.
"%PYTHON%" -P -m app
exit /b %ERRORLEVEL%

:test
shift
set "REST="
set "TIER="
if "%~1"=="quick" set "TIER= -m quick"
if defined TIER shift
:collect
if "%~1"=="" goto collected
set REST=%REST% %1
shift
goto collect
:collected
cd /d "%ROOT%"
"%PYTHON%" -m ruff check || exit /b 1
"%PYTHON%" -m ruff format --check || exit /b 1
if defined TIER goto tests
"%PYTHON%" -m mypy || exit /b 1
:tests
rem Files of tests run side by side, each with one thread: the models in them gain nothing from a second one.
set "OMP_NUM_THREADS=1"
"%PYTHON%" -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder%TIER%%REST%
exit /b %ERRORLEVEL%

:install
rem Missing, of another Python, or left half-made by an interrupted install: begin anew.
if exist "%INSTALLING%" goto make
"%PYTHON%" -c "import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))" >nul 2>&1 && goto packages

:make
set "BASE="
if defined PATINA_PYTHON call :try "%PATINA_PYTHON%"
call :try py -3.13
call :try py -3.12
call :try py -3.11
call :try python
if defined BASE goto found
echo patina: no Python 3.11, 3.12 or 3.13 was found; install one from python.org and run this again, or name it in PATINA_PYTHON. 1>&2
exit /b 1
:found
echo patina: making %VENV% with %BASE%
rem Python goes first and pip comes after the mark, so that being killed here leaves nothing
rem that looks whole: half-cleared packages, or half a pip that can be imported.
del /q "%VENV%\patina-runtime" "%VENV%\patina-dev" "%PYTHON%" >nul 2>&1
%BASE% -m venv --clear --without-pip "%VENV%" || goto unmade
type nul >"%INSTALLING%"
"%PYTHON%" -m ensurepip >nul && goto packages
:unmade
echo patina: could not make %VENV%; see the message above. 1>&2
exit /b 1

:packages
set "LOG=%VENV%\patina-install.log"
set "SIZE=about 0.4 GB to download, 1.5 GB on the disk"
nvidia-smi >nul 2>&1 && set "SIZE=about 3 GB to download, 7 GB on the disk"
echo patina: installing PyTorch and what else Patina needs into %VENV%:
echo patina: %SIZE%; 2 to 10 minutes with a usual connection. What pip says is in %LOG%
type nul >"%LOG%"
type nul >"%INSTALLING%"
del /q "%VENV%\patina-runtime" "%VENV%\patina-dev" >nul 2>&1
set "PIN="
for /f "usebackq delims=" %%L in (`findstr /b "torch==" "%ROOT%constraints.txt"`) do set "PIN=%%L"
set "EXTRAS="
if "%WANT%"=="dev" set "EXTRAS=dev"
rem The default index has the CPU build for Windows; PyTorch's own has the CUDA build.
set "INDEX=%PATINA_TORCH_INDEX%"
nvidia-smi >nul 2>&1 || goto torch
if not defined INDEX set "INDEX=%PYTORCH%/cu130"
if defined EXTRAS set "EXTRAS=%EXTRAS%,gpu"
if not defined EXTRAS set "EXTRAS=gpu"
:torch
"%PYTHON%" -c "import sys, importlib.metadata as m; sys.exit(m.version('torch').split('+')[0] != '%PIN:~7%')" >nul 2>&1 && goto rest
if not defined INDEX goto rest
echo patina: PyTorch comes first, the largest part
"%PYTHON%" -m pip --disable-pip-version-check install --no-deps --index-url "%INDEX%" "%PIN%" >>"%LOG%" 2>&1 && goto rest
echo patina: %INDEX% did not give %PIN%; taking the default build, which may not use the graphics card. 1>&2
:rest
set "TARGET=%ROOT:~0,-1%"
if defined EXTRAS set "TARGET=%TARGET%[%EXTRAS%]"
"%PYTHON%" -m pip --disable-pip-version-check install --constraint "%ROOT%constraints.txt" --editable "%TARGET%" >>"%LOG%" 2>&1
if not errorlevel 1 goto finished
type "%LOG%" 1>&2
echo patina: the installation failed; see the message above, mend it, and run this again. 1>&2
exit /b 1
:finished
copy /b /y "%ROOT%pyproject.toml" "%VENV%\patina-pyproject.toml" >nul
copy /b /y "%ROOT%constraints.txt" "%VENV%\patina-constraints.txt" >nul
>"%VENV%\patina-runtime" echo "%ROOT%"
if "%WANT%"=="dev" >"%VENV%\patina-dev" echo "%ROOT%"
del /q "%INSTALLING%"
echo patina: installed; Patina starts
goto start

:try
rem Remember the first command that is a Python of a fitting version.
if defined BASE exit /b 0
%* -c "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))" >nul 2>&1 && set BASE=%*
exit /b 0
