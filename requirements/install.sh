#!/usr/bin/env bash
# Fills .venv from the lock files, and returns in milliseconds when there is nothing to do.
#
#   install.sh uv | runtime | dev | docs | team   what is needed; each includes the ones before it
#   PYTHON=python3.13                 the interpreter for a new .venv (default: python3, or else
#                                     the first of python3.13, 3.12, 3.11)
#   TORCH=<index url>                 torch and torchvision come from this package index; stays
#                                     chosen until another one is named or .venv is deleted
#
# .venv/installed/ holds a copy of each file that was installed from, written once that was done.
# Contents are compared, not times: git changes times at every checkout.
set -euo pipefail
cd -P "$(dirname "$0")/.."
want=$1
copies=.venv/installed
mark=.venv/unfinished
lock=.cache/setup.lock  # a link to the number of the process that installs

fail() { echo "setup: $*" >&2; exit 2; }
installed() { cmp -s "requirements/$1" "$copies/$1"; }
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
chosen_index() { cat "$copies/torch-index" 2>/dev/null || true; }
pinned() { sed -n "s/^\($1==[^ ;]*\).*/\1/p" requirements/runtime.lock; }

here() { [[ -x .venv/bin/python && $PWD == "$(cat "$copies/folder" 2>/dev/null)" ]]; }
has_runtime() { installed runtime.lock && [[ ${TORCH:-$(chosen_index)} == "$(chosen_index)" ]]; }
more_locks() {  # those beyond runtime.lock, up to the one that is wanted
    local name all=
    for name in dev docs team; do
        all+=" $name.lock"
        [[ $want != "$name" ]] || echo "$all"
    done
}
ready() {
    here && [[ ! -e $mark ]] && installed uv.txt && installed collect_less.pth &&
        { [[ $want == uv ]] || has_runtime; } || return
    local lock_file
    for lock_file in $(more_locks); do installed "$lock_file" || return; done
}

# The mark stands while something is being installed. If it is still there later, that was
# interrupted: harmless while packages were being downloaded, else none of them can be trusted.
broken() {
    local packages
    for packages in .venv/lib/python*/site-packages; do
        [[ -e $mark && ( ! -d $packages || $packages -nt $mark ) ]] && return
    done
    return 1
}

require_git() {
    local said
    command -v git >/dev/null || fail "git is not installed, or not on PATH"
    said=$(LC_ALL=C git rev-parse --git-dir 2>&1) && return
    [[ $said == *"not a git repository (or any"* ]] ||
        fail "git does not read this repository:" ${said#fatal: }
    fail "this folder is not a git repository, which DVC needs: clone it instead of downloading a" \
        "ZIP, or run git init && git add -A && git commit -m 'Start'"
}

# Its number may be that of another process by now: in a container they begin anew each time.
installs() {
    [[ $1 != $$ ]] && kill -0 "$1" 2>/dev/null || return 1
    ! command -v ps >/dev/null || [[ $(ps -p "$1" -o args= 2>/dev/null) == *install.sh* ]]
}

take_turns() {
    mkdir -p .cache
    until ln -s $$ "$lock" 2>/dev/null; do
        local holder
        holder=$(readlink "$lock" || true)
        if [[ -n $holder ]] && ! installs "$holder"; then
            rm -f "$lock"  # left by a process that was killed
            continue
        fi
        [[ -n ${waiting:-} ]] || echo "setup: waiting for process $holder, which fills .venv"
        waiting=yes
        sleep 1
    done
    trap 'broken || rm -f "$mark"; rm -f "$lock"' EXIT
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if recent "$candidate"; then echo "$candidate"; return; fi
    done
    fail "Python 3.11 or newer is needed, but ${PYTHON:-python3} is" \
        "$("${PYTHON:-python3}" --version 2>/dev/null || echo missing); install one (apt install" \
        "python3.11-venv, brew install python@3.13 or pyenv install 3.13) and name it:" \
        "make setup PYTHON=python3.13"
}

# A .venv that was moved or copied has a pip that does not run or answers from another folder.
usable() {
    ! broken && recent .venv/bin/python &&
        [[ "$(.venv/bin/pip --version 2>/dev/null)" == *" from $PWD/.venv/"* ]]
}

make_venv() {
    local python
    python=$(find_python)
    echo "setup: new .venv with $("$python" --version)"
    rm -rf .venv/bin  # first: a .venv that is half deleted must not look usable
    rm -rf .venv
    mkdir .venv
    touch "$mark"
    "$python" -m venv .venv
}

finish() {
    cp "requirements/$1" "$copies/"
    rm "$mark"
}

install_uv() {
    touch "$mark"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        --requirement requirements/uv.txt
    mkdir -p "$copies"
    echo "$PWD" > "$copies/folder"
    finish uv.txt
}

uv_install() {  # arguments as for `uv pip install`
    touch "$mark"
    [[ -t 2 ]] || set -- --quiet "$@"  # bars are for terminals
    # Compiled now, torch and mlflow start twice as fast where Python may not write bytecode later.
    .venv/bin/uv pip install --compile-bytecode --python .venv/bin/python "$@"
}

install_start() {
    cp requirements/collect_less.pth .venv/lib/python*/site-packages/
    cp requirements/collect_less.pth "$copies/"
}

install_runtime() {
    local index=${TORCH:-$(chosen_index)}
    if [[ -z $index ]]; then
        echo "setup: installing requirements/runtime.lock (on Linux 6 GB, most of it torch's GPU part)"
        uv_install --require-hashes --requirement requirements/runtime.lock
    else
        echo "setup: installing requirements/runtime.lock with torch from $index"
        # The lock is complete, so all but torch and what it alone needs installs without
        # dependencies; the other index then adds what its build of torch needs.
        awk '/^[^ ]/ {keep = !/^(torch|torchvision|triton|nvidia-[^=]*|cuda-[^=]*)==/} keep' \
            requirements/runtime.lock > "$copies/without-torch.lock"
        uv_install --require-hashes --no-deps --requirement "$copies/without-torch.lock"
        uv_install --default-index "$index" --reinstall-package torch \
            --reinstall-package torchvision "$(pinned torch)" "$(pinned torchvision)"
        echo "setup: where a build tag such as +cpu makes a version differ from the lock's, runs" \
            "carry the tag versions.match=false"
    fi
    printf '%s' "$index" > "$copies/torch-index"
    finish runtime.lock
}

install_locked() {
    uv_install --require-hashes --requirement "requirements/$1"
    finish "$1"
}

[[ $want != runtime ]] || require_git
if ! ready; then
    take_turns
    here && ! broken || rm -rf "$copies"
    usable || make_venv
    installed uv.txt || install_uv
    installed collect_less.pth || install_start
    [[ $want == uv ]] || has_runtime || install_runtime
    for lock_file in $(more_locks); do
        installed "$lock_file" || install_locked "$lock_file"
    done
fi
if [[ $want == runtime ]]; then
    # What .gitattributes calls `ours`: the file stays as it is here.
    [[ "$(git config merge.ours.driver)" == true ]] || git config merge.ours.driver true
    [[ -n "$(git config user.name || true)" && -n "$(git config user.email || true)" ]] || cat <<'HINT'
setup: git does not know you yet; `dvc exp run --temp` and the queue will need these two lines:
    git config --global user.name "Your Name"
    git config --global user.email you@example.com
HINT
fi
