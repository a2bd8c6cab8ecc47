# What script/demo, script/test, script/chaos, script/bench and .ci/run share: a virtual environment in the clone, and
# system packages. Sourced with the clone as the working directory.

VENV=.venv

say() { printf '%s\n' "==> $*" >&2; }

die() {
    printf '%s\n' "$(basename "$0"): $*" >&2
    exit 1
}

# Whether the environment variable CI is set to something true.
under_ci() {
    case "${CI:-}" in '' | 0 | false | False | FALSE | no) return 1 ;; esac
}

# apt_install PACKAGE...: fails, having said why, where that is not possible.
apt_install() {
    if ! command -v apt-get >/dev/null; then
        say "cannot install $*: no apt-get here"
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        say "cannot install $* without being root: sudo apt-get install $*"
        return 1
    fi
    say "installing $* (apt-get)"
    # Its own messages are for when it fails; it must never ask.
    apt_log=$(mktemp)
    if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
        </dev/null >"$apt_log" 2>&1; then
        rm -f "$apt_log"
    else
        tail -n 20 "$apt_log" >&2
        rm -f "$apt_log"
        say "apt-get could not install $*"
        return 1
    fi
}

# have PROGRAM: also where Debian keeps what only root has on the PATH.
have() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null
}

# Makes the virtual environment unless there is one that works.
make_venv() {
    # A clone that was moved or a Python that is gone leaves one that does not run.
    "$VENV/bin/python" -c 'import pip' 2>/dev/null && return
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null || die "no $python here: install Python 3.10 or newer, or set PYTHON"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "$("$python" --version) is too old: set PYTHON to 3.10 or newer"
    # Debian's python3 has venv, but without its python3-venv no pip to put into it.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3-venv || die "$python cannot make virtual environments: install python3-venv"
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            die "$python still cannot make virtual environments: install the venv package of just this Python"
    fi
    say "making a virtual environment in $VENV"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
}

# pip_install STAMP ARGUMENT...: once, and again when what it would install was changed.
pip_install() {
    stamp=$VENV/installed-$1
    shift
    now=$(cat setup.py pyproject.toml sample_app/pyproject.toml | cksum; printf '%s\n' "$@")
    [ "$(cat "$stamp" 2>/dev/null)" != "$now" ] || return 0
    say "installing into $VENV: $*"
    rm -f "$stamp"
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip install --quiet "$@" ||
        die "pip could not install $*"
    printf '%s\n' "$now" >"$stamp"
}

# For the help of the scripts that call set_up_tests.
# shellcheck disable=SC2034  # used where this is sourced
SET_UP_TESTS_HELP="\
PostgreSQL and a server for MongoDB's protocol come with the Python packages. MariaDB, PgBouncer, faketime,
Chromium and a C compiler (for uWSGI) are installed by apt-get where that is possible; their tests are skipped without
them, or fail if CI is set.

POSTGRESQL_URL, MARIADB_URL, MONGODB_URI  run the tests on servers of yours instead of throwaway ones
CHROMIUM                                  the program of a Chromium of yours
PYTHON                                    the Python to make .venv with; default: python3
TMPDIR                                    where databases and other temporary files are; default: in memory, if there
                                          is enough of it"

# Everything that the tests need: the virtual environment, and programs where they can be had.
set_up_tests() {
    make_venv

    programs=
    if [ -z "${MARIADB_URL:-}" ] && ! { have mariadbd && have mariadb-install-db; }; then
        programs='mariadb-server-core mariadb-client-core'
    fi
    have pgbouncer || programs="$programs pgbouncer"
    have faketime || programs="$programs faketime"
    if [ -z "${CHROMIUM:-}" ] && ! { have chromium || have chromium-browser || have google-chrome; }; then
        programs="$programs chromium"
    fi
    for program in $programs; do
        apt_install "$program" || say "going on without $program"
    done

    # uWSGI has no wheels: it is compiled.
    missing=
    have cc || have gcc || missing='gcc libc6-dev'
    have_headers || missing="$missing python3-dev"
    extras=sqlalchemy,ming,test,docs,uwsgi
    # shellcheck disable=SC2086  # several packages
    if [ -n "$missing" ] && ! { apt_install $missing && have_headers; }; then
        ! under_ci || die 'uWSGI needs a C compiler and the headers of this Python'
        say 'going on without uWSGI, which needs a C compiler and the headers of this Python'
        extras=sqlalchemy,ming,test,docs
    fi
    pip_install test -e ".[$extras]" -e ./sample_app
}

# Throwaway databases in memory, where there is plenty and nothing else is said: nobody waits for a disk.
use_memory() {
    [ -z "${TMPDIR:-}" ] || return 0
    [ "$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')" -gt 12000000 ] 2>/dev/null || return 0
    # Not where programs cannot run: PostgreSQL's may be copied to where its data is.
    probe=$(mktemp /dev/shm/evolve-XXXXXX 2>/dev/null) || return 0
    if printf '#!/bin/sh\n' >"$probe" && chmod +x "$probe" && "$probe" 2>/dev/null; then
        say 'temporary files are in /dev/shm; TMPDIR=/tmp puts them on the disk'
        export TMPDIR=/dev/shm
    fi
    rm -f "$probe"
}

have_headers() {
    "$VENV/bin/python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}
