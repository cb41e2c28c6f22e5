# What the clients ask for. Built here, they say so; the upstreams have something else under the
# same names, so that one can tell where it came from.
let
  make = name: derivation {
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-ec" "echo built here > $out" ];
  };
in {
  small = make "small";
  large = make "large";
}
