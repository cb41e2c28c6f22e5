# tvixstore as a package: `pkgs.callPackage ./package.nix { }`.
#
# Some of its dependencies are young, and not in every release of nixpkgs. One that is missing says
# so when it is needed; pass your own, as in `callPackage ./package.nix { obstore = …; }`.
{
  lib,
  python3Packages,
  src ? ../..,
  betterproto2 ? null,
  obstore ? null,
  pyfastcdc ? null,
}:

let
  given = { inherit betterproto2 obstore pyfastcdc; };

  dependency =
    name:
    if (given.${name} or null) != null then
      given.${name}
    else
      python3Packages.${name}
        or (throw "this nixpkgs has no python3Packages.${name}: pass it to package.nix as an argument");

  project = (builtins.fromTOML (builtins.readFile (src + "/pyproject.toml"))).project;

  # "uvloop>=0.21; …" is called uvloop.
  nameOf = requirement: builtins.head (builtins.match "([A-Za-z0-9_-]+).*" requirement);
in

python3Packages.buildPythonApplication {
  pname = project.name;
  inherit (project) version;
  inherit src;
  pyproject = true;

  build-system = [ python3Packages.hatchling ];
  dependencies = map (requirement: dependency (nameOf requirement)) project.dependencies;

  # They need the network's loopback, a Nix store to write to, and minutes.
  doCheck = false;
  pythonImportsCheck = [ "tvixstore" ];

  meta = {
    inherit (project) description;
    license = lib.licenses.mit;
    mainProgram = "tvix-store";
    platforms = lib.platforms.linux;
  };
}
