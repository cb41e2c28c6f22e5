# tvixstore as a NixOS service:
#
#   imports = [ ./tvixstore/examples/nixos/module.nix ];
#   services.tvixstore = {
#     enable = true;
#     settings.substituters = [ {
#       url = "https://cache.nixos.org";
#       public_keys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
#     } ];
#   };
#   nix.settings.substituters = lib.mkForce [ "http://127.0.0.1:9000" ];
#
# The service is as confined as ../systemd/tvixstore.service, which says why of some lines.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkEnableOption mkIf mkOption types;

  cfg = config.services.tvixstore;
  format = pkgs.formats.toml { };

  defaults.daemon = {
    http = "127.0.0.1:9000";
    grpc = "127.0.0.1:8000";
    state = "/var/lib/tvixstore";
    drain_timeout = "30s";
  };
  settings = lib.recursiveUpdate defaults cfg.settings;

  written = format.generate "compose.toml" settings;
  # Mistakes show when the system is built, not when the service starts.
  checked = pkgs.runCommand "tvixstore-compose.toml" { CREDENTIALS_DIRECTORY = "/run/credentials"; } ''
    ${cfg.package}/bin/tvix-store compose check ${written}
    cp ${written} $out
  '';
  compose = if cfg.checkSettings then checked else written;

  # The doors that are open, each with the address that the compose file has for it.
  doors = lib.filterAttrs (_: address: address != "off") {
    inherit (settings.daemon) http grpc;
  };
  socketOf = door: "tvixstore-${door}.socket";
  portOf = address: lib.toInt (lib.last (lib.splitString ":" address));
in
{
  options.services.tvixstore = {
    enable = mkEnableOption "tvixstore, a content-addressed store and caching proxy for Nix";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package that has `bin/tvix-store`.";
    };

    settings = mkOption {
      type = format.type;
      default = { };
      description = ''
        The compose file, as docs/configuration.md and docs/composition.md explain it. It is
        readable for everybody: name secrets as `''${CREDENTIALS_DIRECTORY}/NAME`, with
        `credentials`, or as `''${NAME}`, with `environmentFile`.
      '';
      example = lib.literalExpression ''
        {
          daemon.tokens_file = "\''${CREDENTIALS_DIRECTORY}/tokens";
          store.max_size = "100GiB";
        }
      '';
    };

    checkSettings = mkOption {
      type = types.bool;
      default = cfg.environmentFile == null;
      defaultText = lib.literalExpression "config.services.tvixstore.environmentFile == null";
      description = ''
        Whether `tvix-store compose check` has to pass before the system is built. It cannot, where
        variables are known only when the service starts.
      '';
    };

    credentials = mkOption {
      type = types.attrsOf types.str;
      default = { };
      description = "Files with secrets, which only root need be able to read, by the name that settings have for them.";
      example = {
        tokens = "/etc/secrets/tvixstore-tokens";
      };
    };

    environmentFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "A file of `NAME=value` lines, for `\${NAME}` in settings.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether other machines may connect, where it listens on more than loopback.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = lib.hasPrefix "/var/lib/tvixstore" settings.daemon.state;
        message = "services.tvixstore: settings.daemon.state has to be below /var/lib/tvixstore, which is all that the service can write to.";
      }
    ];

    # The command, with its man pages and completion.
    environment.systemPackages = [ cfg.package ];

    # They listen before the daemon is there, and while it starts again.
    systemd.sockets = lib.mapAttrs' (door: address: {
      name = "tvixstore-${door}";
      value = {
        description = "tvixstore, ${door}";
        wantedBy = [ "sockets.target" ];
        socketConfig = {
          ListenStream = lib.removePrefix "unix:" address;
          FileDescriptorName = door;
          Service = "tvixstore.service";
          Backlog = 1024;
          SocketMode = "0660";
        };
      };
    }) doors;

    systemd.services.tvixstore = {
      description = "tvixstore, a content-addressed store and caching proxy for Nix";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];

      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${cfg.package}/bin/tvix-store daemon --compose ${compose}";
        Sockets = map socketOf (lib.attrNames doors);
        EnvironmentFile = lib.optional (cfg.environmentFile != null) cfg.environmentFile;
        LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.credentials;

        WatchdogSec = "60s";
        Restart = "on-failure";
        RestartSec = "2s";
        TimeoutStartSec = "15min";
        TimeoutStopSec = "45s";
        KillMode = "mixed";

        DynamicUser = true;
        StateDirectory = "tvixstore";
        StateDirectoryMode = "0700";
        UMask = "0077";
        LimitNOFILE = 65536;
        LimitCORE = 0;

        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        NoNewPrivileges = true;
        DevicePolicy = "closed";
        KeyringMode = "private";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        PrivateDevices = true;
        PrivateTmp = true;
        PrivateUsers = true;
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = "AF_INET AF_INET6 AF_UNIX";
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged @resources"
        ];
        SystemCallErrorNumber = "EPERM";
      };
    };

    networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall (
      map portOf (
        lib.filter (address: !lib.hasPrefix "unix:" address) (lib.attrValues doors)
      )
    );
  };
}
