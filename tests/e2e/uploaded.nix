# What is built to be uploaded. Derivations by hand: the builder is /bin/sh, and nothing is fetched.
let
  make = name: script: extra: derivation ({
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-ec" script ];
  } // extra);
  addressed = {
    __contentAddressed = true;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
  };
in rec {
  # Content-addressed: a dependency, and what refers to it and to itself.
  below = make "ca-below" "echo below > $out" addressed;
  above = make "ca-above" "echo $out needs ${below} > $out" addressed;

  # Says something to its log, and has debug information.
  debugged = make "debugged" ''
    echo this goes to the log
    folder=$out/lib/debug/.build-id/48
    mkdir -p $folder
    echo ELF > $folder/3bd7f7229bdb06462222e1e353e4f37e15c293.debug
  '' { };
}
