# What the upstream caches hold. Derivations by hand: the builder is /bin/sh, and nothing is fetched.
let
  make = name: script: extra: derivation ({
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-ec" script ];
  } // extra);
in rec {
  leaf = make "leaf" ''
    mkdir -p $out/share
    echo leaf-data > $out/share/data.txt
    ln -s data.txt $out/share/link
  '' { };

  lib = make "lib-1.0" ''
    mkdir -p $out/lib
    echo "lib $out needs ${leaf}" > $out/lib/libx.so
    i=0
    while [ $i -lt 20000 ]; do echo "line $i of $out"; i=$((i + 1)); done > $out/lib/text
    head -c 300000 /dev/urandom > $out/lib/noise
  '' { };

  app = make "app-2.0" ''
    mkdir -p $out/bin $out/empty "$out/share/ünïcödé ☃"
    printf '#!/bin/sh\necho app ${lib} ${leaf}\n' > $out/bin/app
    chmod +x $out/bin/app
    echo snow > "$out/share/ünïcödé ☃/日本語.txt"
    echo odd > "$out/share/ -\"quoted\" \\ \$name
on two lines"
    printf "" > $out/share/nothing
    ln -s ${leaf}/share/data.txt $out/share/absolute
    ln -s ../bin/app $out/share/relative
    ln -s /nowhere/at/all $out/share/dangling
    echo self $out > $out/share/self
  '' { };

  big = make "big" ''
    mkdir -p $out
    head -c 50000000 /dev/urandom > $out/noise
    i=0
    while [ $i -lt 200000 ]; do echo "line $i $out"; i=$((i + 1)); done > $out/text
  '' { };

  many =
    let
      one = number: make "leaf-${toString number}" ''
        i=0
        while [ $i -lt 500 ]; do echo "${toString number} $i $out"; i=$((i + 1)); done > $out
      '' { };
      leaves = builtins.genList one 60;
    in make "many" "echo $leaves > $out" { inherit leaves; };

  # Never published, so that it has to be built: beside a substituter that is down.
  local = make "built-here" "echo built from ${leaf} > $out" { };
}
