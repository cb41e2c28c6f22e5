# `nix-shell`: what `make` needs. Python's packages go into .venv, as everywhere else.
{
  pkgs ? import <nixpkgs> { },
}:

pkgs.mkShell {
  packages = [
    pkgs.gnumake
    pkgs.nix
    pkgs.python313
    # systemd-analyze, which the tests hold the units against.
    pkgs.systemd
  ];

  # The wheels in .venv were built for other distributions.
  LD_LIBRARY_PATH = pkgs.lib.makeLibraryPath [
    pkgs.libseccomp
    pkgs.stdenv.cc.cc.lib
    pkgs.zlib
  ];
}
