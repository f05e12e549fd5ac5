# shellcheck shell=sh disable=SC2154 # The variables stand before this text; see clone.rs.
set -e
fail() { printf 'checkout: %s\n' "$1" >&2; exit 1; }

[ -n "$url" ] || fail 'the repository has no remote to clone from; add one, or run without --checkout git'
[ -n "$sha" ] || fail 'the repository has no commit yet; commit and push, or run without --checkout git'
command -v git >/dev/null 2>&1 || fail 'there is no git in this image; use an image that has it, or run without --checkout git'

if [ "${HOME:-/}" = / ]; then
  uid=$(id -u)
  while IFS=: read -r _ _ found _ _ home _; do
    [ "$found" != "$uid" ] || HOME=$home
  done </etc/passwd
  export HOME
fi

if [ -n "$https_url" ] && [ -z "${CHECKOUT_KEY:-}" ]; then
  printf 'No checkout key: cloning %s instead of %s\n' "$https_url" "$url"
  url=$https_url
  https_url=
fi

export GIT_TERMINAL_PROMPT=0
if [ -n "$https_url" ]; then
  command -v ssh >/dev/null 2>&1 || fail 'there is no ssh in this image, but the repository is cloned over ssh'
  NAVVY_SSH_DIR=${SSH_CONFIG_DIR:-$HOME/.ssh}
  export NAVVY_SSH_DIR
  printf 'Using SSH config directory %s\n' "$NAVVY_SSH_DIR"
  git --version
  mkdir -p -- "$NAVVY_SSH_DIR"
  chmod 0700 "$NAVVY_SSH_DIR"
  (
    umask 077
    printf '%s\n' "$known_hosts" >>"$NAVVY_SSH_DIR/known_hosts"
    rm -f "$NAVVY_SSH_DIR/id_rsa" "$NAVVY_SSH_DIR/id_rsa.pub"
    printf '%s\n' "$CHECKOUT_KEY" >"$NAVVY_SSH_DIR/id_rsa"
    [ -z "${CHECKOUT_KEY_PUBLIC:-}" ] || printf '%s\n' "$CHECKOUT_KEY_PUBLIC" >"$NAVVY_SSH_DIR/id_rsa.pub"
  )
  chmod 0600 "$NAVVY_SSH_DIR/known_hosts" "$NAVVY_SSH_DIR/id_rsa"
  # git hands this to a shell, which takes the directory from the environment.
  # shellcheck disable=SC2016
  export GIT_SSH_COMMAND='ssh -i "$NAVVY_SSH_DIR/id_rsa" -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile="$NAVVY_SSH_DIR/known_hosts"'
  git config --global url."ssh://git@github.com".insteadOf "https://github.com" || true
else
  git --version
fi
unset CHECKOUT_KEY CHECKOUT_KEY_PUBLIC
git config --global gc.auto 0 || true

if [ -n "$local_path" ] && [ ! -e "$local_path" ]; then
  fail "the remote is the path $local_path, which this job's environment does not have; give the repository a remote that can be reached from there, or run without --checkout git"
fi

# Of git 2.41.0 partial clones are broken; older ones than 2.19 have none.
case $(git --version) in *' 2.41.0'*) filter= ;; esac
case $(git clone -h 2>&1 || :) in *--filter*) ;; *) filter= ;; esac
# As written in the config, where a tilde means the home.
# shellcheck disable=SC2088
case $path in
  '~') path=$HOME ;;
  '~/'*) path=$HOME/${path#??} ;;
  /*) ;;
  *) path=./$path ;;
esac

if [ -e "$path/.git" ]; then
  cd "$path"
  printf 'Fetching into existing repository\n'
  git remote set-url origin "$url" 2>/dev/null || git remote add origin "$url"
  set --
  [ -z "$depth" ] || set -- --depth "$depth"
  if [ -n "$tag" ]; then
    git fetch --force "$@" origin '+refs/tags/*:refs/tags/*'
  elif [ -n "$branch" ]; then
    git fetch --force "$@" origin "+refs/heads/$branch:refs/remotes/origin/$branch" ||
      fail "branch $branch is not at $url; push it, or run without --checkout git"
  else
    git fetch --force "$@" origin
  fi
else
  if [ -e "$path" ] && [ -n "$(ls -A "$path")" ]; then
    fail "$path is not empty and is not a git repository; give checkout another path, or the job another working_directory"
  fi
  printf 'Cloning git repository\n'
  mkdir -p "$path"
  set -- --no-checkout
  [ -z "$filter" ] || set -- "$@" --filter="$filter"
  [ -z "$depth" ] || set -- "$@" --depth "$depth" --no-single-branch
  git clone "$@" -- "$url" "$path"
  cd "$path"
fi

if ! GIT_NO_LAZY_FETCH=1 git cat-file -e "$sha^{commit}" 2>/dev/null && ! git fetch origin "$sha"; then
  fail "commit $sha is not at $url; push it, or run without --checkout git"
fi

if [ -n "$tag" ]; then
  printf 'Checking out tag %s\n' "$tag"
  git checkout --force --quiet "refs/tags/$tag" || fail "tag $tag is not at $url; push it, or run without --checkout git"
  git reset --hard "$sha"
elif [ -n "$branch" ]; then
  printf 'Checking out branch %s\n' "$branch"
  git checkout --force -B "$branch" "$sha" --
else
  git checkout --force --quiet --detach "$sha"
fi
git --no-pager log --no-color -n 1 --format='HEAD is now at %h %s'
