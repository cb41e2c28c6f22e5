# The little of nixpkgs that the module and the package use, so that they can be evaluated without
# it: `evaluate { settings… }` is what the module makes of `services.tvixstore`, `package` what the
# package is built from, `shell` what the shell has.
{
  root,
  given ? { },
  absent ? [ ],
}:

let
  inherit (builtins)
    attrNames
    attrValues
    concatStringsSep
    elem
    elemAt
    filter
    hasAttr
    isAttrs
    isFunction
    isString
    length
    listToAttrs
    mapAttrs
    match
    removeAttrs
    split
    stringLength
    substring
    ;

  lib = rec {
    literalExpression = text: text;
    mkEnableOption = description: mkOption {
      type = types.bool;
      default = false;
      inherit description;
    };
    mkOption = option: option // { _type = "option"; };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkForce = value: value;
    types = {
      attrsOf = element: { check = isAttrs; };
      bool.check = builtins.isBool;
      nullOr = inner: { check = value: value == null || inner.check value; };
      package.check = value: isAttrs value || isString value;
      str.check = isString;
    };
    inherit attrNames attrValues filter;
    filterAttrs =
      keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    optional = condition: value: if condition then [ value ] else [ ];
    recursiveUpdate =
      left: right:
      left
      // mapAttrs (
        name: value:
        if isAttrs value && isAttrs (left.${name} or null) then
          recursiveUpdate left.${name} value
        else
          value
      ) right;
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    removePrefix =
      prefix: text:
      if hasPrefix prefix text then substring (stringLength prefix) (stringLength text) text else text;
    last = list: elemAt list (length list - 1);
    splitString = separator: text: filter isString (split separator text);
    toInt = text: builtins.fromJSON text;
    licenses.mit = "MIT";
    platforms.linux = [ "x86_64-linux" ];
    makeLibraryPath = concatStringsSep ":";
  };

  python3Packages = listToAttrs (
    map
      (name: {
        inherit name;
        value = "python3-${name}";
      })
      (
        filter (name: !elem name absent) [
          "aiofiles" "aiohttp" "anyio" "betterproto2" "blake3" "brotli" "cryptography" "grpclib"
          "h2" "hatchling" "lmdb" "lz4" "obstore" "prometheus-client" "protobuf" "pydantic"
          "pyfastcdc" "rich" "typer" "uvloop" "zstandard"
        ]
      )
  ) // { buildPythonApplication = attributes: attributes; };

  pkgs = {
    inherit lib python3Packages;
    callPackage = file: arguments: "/nix/store/tvixstore";
    formats.toml = { }: {
      type.check = isAttrs;
      generate = name: value: "${name}: ${builtins.toJSON value}";
    };
    runCommand = name: environment: script: "${name} by ${script}";
    mkShell = attributes: attributes;
    gnumake = "gnumake";
    libseccomp = "libseccomp";
    nix = "nix";
    python313 = "python313";
    stdenv.cc.cc.lib = "libstdc++";
    systemd = "systemd";
    zlib = "zlib";
  };

  # Without merging: what is set, else the default, of the type that the option has.
  value =
    name: option:
    let
      chosen = if hasAttr name given then given.${name} else option.default;
    in
    if option.type.check chosen then chosen else throw "services.tvixstore.${name} is of a wrong type";

  module = import (root + "/examples/nixos/module.nix") { inherit config lib pkgs; };
  options = module.options.services.tvixstore;
  config.services.tvixstore =
    assert builtins.all (name: hasAttr name options) (attrNames given);
    mapAttrs value options;

  settle =
    value:
    if isAttrs value && (value._type or null) == "if" then
      if value.condition then settle value.content else null
    else if isAttrs value then
      mapAttrs (_: settle) value
    else if builtins.isList value then
      map settle value
    else
      value;
in

{
  config = settle module.config;
  options = mapAttrs (_: option: option.description) options;
  package = removeAttrs (import (root + "/examples/nixos/package.nix") {
    inherit lib python3Packages;
  }) [ "src" ];
  shell = import (root + "/shell.nix") { inherit pkgs; };
}
