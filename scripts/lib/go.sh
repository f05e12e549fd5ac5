# shellcheck shell=bash
# Finds the Go that a test's server is built with. Whoever's Go is older takes a newer one from the module proxy: it is a module like
# any other.

# go_is_new_enough GO VERSION
go_is_new_enough() {
  local have
  have=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null)
  [[ -n $have ]] && printf '%s\n%s\n' "$2" "${have#go}" | sort -VC
}

go_arch() {
  case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) die "no Go toolchain is named here for $(uname -m)" ;;
  esac
}

# find_go VERSION: prints the program that builds with at least this version; fails if there is no Go at all.
find_go() {
  local go found='' directory
  for go in "$(command -v go)" /usr/local/go/bin/go; do
    if [[ -x $go ]]; then
      found=$go
      break
    fi
  done
  [[ -n $found ]] || return 1
  go_is_new_enough "$found" "$1" && printf '%s\n' "$found" && return
  directory=$(GOTOOLCHAIN=local "$found" mod download -json "golang.org/toolchain@v0.0.1-go$1.linux-$(go_arch)" |
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')
  [[ -d $directory ]] || die "failed to get Go $1 from the module proxy"
  # A module's files are data; these are programs.
  chmod -R +x "$directory/bin" "$directory/pkg/tool"
  printf '%s\n' "$directory/bin/go"
}
