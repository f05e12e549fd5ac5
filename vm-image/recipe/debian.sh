# shellcheck shell=bash disable=SC2034,SC2154
# What this machine knows about reaching Debian and the web. What is made from Debian's packages here gets it, too, so that it
# reaches them the same way. Whoever sources this says which `suite`.

shopt -s nullglob
apt_sources=(/etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources)
extra_certificates=(/usr/local/share/ca-certificates/*.crt)

# The mirrors this machine itself uses for the suite; none (not Debian 12) leaves the choice to mmdebstrap.
mirrors() {
  # shellcheck disable=SC2016  # apt's own placeholders
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 2>/dev/null | grep -E " $suite(-updates|-security)? " | sort -u || true
}

# Proxies and the like that this machine's apt is told to use.
apt_settings() { apt-config dump 2>/dev/null | grep -E '^Acquire::(https?::|Check-Valid-Until|Check-Date)' || true; }
