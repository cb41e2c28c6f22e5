# Completion of tvix-store for fish. Made from the command line by `make manual`.

# Whether the words before the cursor name the command that the arguments name.
function __tvix_store_at
    set -l words (commandline -opc)
    set -e words[1]
    set -l command
    for word in $words
        # Options of commands that have commands take no values.
        string match -q -- '-*' $word; and continue
        set -a command $word
        contains -- "$command" compose key; or break
    end
    test "$command" = "$argv"
end

complete -c tvix-store -f

complete -c tvix-store -n '__tvix_store_at' -a daemon -d 'Run the store, until SIGTERM or SIGINT. SIGHUP has the compose file read again'
complete -c tvix-store -n '__tvix_store_at' -a copy -d 'Copy store paths, with all that they refer to, from one place to another'
complete -c tvix-store -n '__tvix_store_at' -a info -d 'Say what is known of store paths. Downloads nothing'
complete -c tvix-store -n '__tvix_store_at' -a top -d 'Watch what a daemon is fetching, for whom, and how fast; `q` ends it'
complete -c tvix-store -n '__tvix_store_at' -a explain -d 'Say why the last answers about a store path were what they were'
complete -c tvix-store -n '__tvix_store_at' -a import -d 'Take files and folders into the store; print their store paths, as `nix-store --add` does'
complete -c tvix-store -n '__tvix_store_at' -a nar-hash -d 'Print the SHA-256 of the NAR of each PATH, as `nix hash path` does. Needs no store'
complete -c tvix-store -n '__tvix_store_at' -a nar -d 'Write the NAR of a store path to standard output, as `nix-store --dump` does'
complete -c tvix-store -n '__tvix_store_at' -a ls -d 'List what is in a store path, as `nix store ls` does; fetch no file of it'
complete -c tvix-store -n '__tvix_store_at' -a cat -d 'Write a file in a store path to standard output; fetch no more than that needs'
complete -c tvix-store -n '__tvix_store_at' -a extract -d 'Put a store path on disk, with the modes that `nix-store --restore` gives'
complete -c tvix-store -n '__tvix_store_at' -a add-nar -d 'Take a NAR into the store; print its store path'
complete -c tvix-store -n '__tvix_store_at' -a pin -d 'Keep store paths, and all that they refer to, from eviction'
complete -c tvix-store -n '__tvix_store_at' -a unpin -d 'Let eviction have store paths again'
complete -c tvix-store -n '__tvix_store_at' -a pins -d 'List what is pinned: since when, with how much, and why'
complete -c tvix-store -n '__tvix_store_at' -a verify -d 'Read and hash all that is kept, and say what is wrong. The daemon may go on'
complete -c tvix-store -n '__tvix_store_at' -a forget-absences -d 'Ask anew for what was absent: it has just been put elsewhere'
complete -c tvix-store -n '__tvix_store_at' -a compose -d 'Look at compose files without running them'
complete -c tvix-store -n '__tvix_store_at' -a key -d 'Make keys that sign what goes out of a store'
complete -c tvix-store -n '__tvix_store_at' -l version -d 'Say which version it is'
complete -c tvix-store -n '__tvix_store_at' -s h -l help -d 'Show this message and exit'

complete -c tvix-store -n '__tvix_store_at daemon' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at daemon' -l watch -d 'Apply the compose file whenever it changes, as SIGHUP does'
complete -c tvix-store -n '__tvix_store_at daemon' -s h -l help -d 'Show this message and exit'

complete -c tvix-store -n '__tvix_store_at copy' -l from -r -F -d 'Where to copy from: grpc+http(s)://HOST:PORT, grpc+unix:///PATH, http(s)://…, file:///FOLDER, or a compose file. Left out: the local daemon'
complete -c tvix-store -n '__tvix_store_at copy' -l to -r -F -d 'Where to copy to, likewise. One of the two can be left out'
complete -c tvix-store -n '__tvix_store_at copy' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at copy' -l closure-info -r -F -d 'A list of paths: `nix path-info --json`, or an exportReferencesGraph; - is standard input'
complete -c tvix-store -n '__tvix_store_at copy' -s r -l recursive -d 'Also what the paths refer to, or not'
complete -c tvix-store -n '__tvix_store_at copy' -l no-recursive -d 'Also what the paths refer to, or not'
complete -c tvix-store -n '__tvix_store_at copy' -s j -l jobs -x -d 'Paths at a time'
complete -c tvix-store -n '__tvix_store_at copy' -l compression -x -a 'none zstd xz' -d 'How to compress NARs for a binary cache'
complete -c tvix-store -n '__tvix_store_at copy' -l public-keys -x -d 'Keys, one of which has to have signed each path; several, by spaces or again'
complete -c tvix-store -n '__tvix_store_at copy' -l no-check-sigs -d 'Copy what nobody trusted has signed, too'
complete -c tvix-store -n '__tvix_store_at copy' -l netrc-file -r -F -d 'Logins, as in a .netrc, for both ends'
complete -c tvix-store -n '__tvix_store_at copy' -l token-file -r -F -d 'A token, for both ends'
complete -c tvix-store -n '__tvix_store_at copy' -l ca-file -r -F -d 'Authorities in addition to the system\'s, for both ends'
complete -c tvix-store -n '__tvix_store_at copy' -l from-netrc-file -r -F -d 'Logins, for --from'
complete -c tvix-store -n '__tvix_store_at copy' -l from-token-file -r -F -d 'A token, for --from'
complete -c tvix-store -n '__tvix_store_at copy' -l from-ca-file -r -F -d 'Authorities, for --from'
complete -c tvix-store -n '__tvix_store_at copy' -l to-netrc-file -r -F -d 'Logins, for --to'
complete -c tvix-store -n '__tvix_store_at copy' -l to-token-file -r -F -d 'A token, for --to'
complete -c tvix-store -n '__tvix_store_at copy' -l to-ca-file -r -F -d 'Authorities, for --to'
complete -c tvix-store -n '__tvix_store_at copy' -l directory-sizes -x -a 'documented doubled' -d 'How the daemon that is written to counts the sizes of Directories: tvix\'s and snix\'s want `doubled`'
complete -c tvix-store -n '__tvix_store_at copy' -l json -d 'Print what was done, as a JSON object'
complete -c tvix-store -n '__tvix_store_at copy' -s q -l quiet -d 'Say nothing but what goes wrong'
complete -c tvix-store -n '__tvix_store_at copy' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at copy' -F

complete -c tvix-store -n '__tvix_store_at info' -l from -r -F -d 'Whom to ask, named as for `copy`. Left out: the local daemon'
complete -c tvix-store -n '__tvix_store_at info' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at info' -s S -l closure-size -d 'Also tell the size of all NARs that a path needs together'
complete -c tvix-store -n '__tvix_store_at info' -l netrc-file -r -F -d 'Logins, as in a .netrc'
complete -c tvix-store -n '__tvix_store_at info' -l token-file -r -F -d 'A token, if one is wanted'
complete -c tvix-store -n '__tvix_store_at info' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at info' -l json -d 'Print a JSON array'
complete -c tvix-store -n '__tvix_store_at info' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at info' -F

complete -c tvix-store -n '__tvix_store_at top' -l from -x -d 'The daemon: grpc+http(s)://HOST:PORT or grpc+unix:///PATH. Left out: the one that runs on the compose file'
complete -c tvix-store -n '__tvix_store_at top' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at top' -l interval -x -d 'Seconds from one look to the next'
complete -c tvix-store -n '__tvix_store_at top' -l once -d 'Look once'
complete -c tvix-store -n '__tvix_store_at top' -l json -d 'As JSON, a line a look'
complete -c tvix-store -n '__tvix_store_at top' -l token-file -r -F -d 'A token with the right `read`, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at top' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at top' -s h -l help -d 'Show this message and exit'

complete -c tvix-store -n '__tvix_store_at explain' -l dry-run -d 'Also look it up now, without fetching its NAR'
complete -c tvix-store -n '__tvix_store_at explain' -l all -d 'Also nodes that only passed a call on'
complete -c tvix-store -n '__tvix_store_at explain' -l json -d 'As JSON, with all there is'
complete -c tvix-store -n '__tvix_store_at explain' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at explain' -l token-file -r -F -d 'A token with the right `read`'
complete -c tvix-store -n '__tvix_store_at explain' -l ca-file -r -F -d 'Authorities beside the system\'s'
complete -c tvix-store -n '__tvix_store_at explain' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at explain' -F

complete -c tvix-store -n '__tvix_store_at import' -l to -r -F -d 'Where to: a daemon\'s URL or a compose file. Left out: the local daemon'
complete -c tvix-store -n '__tvix_store_at import' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at import' -l name -x -d 'What to call it, if not as the file is; for one PATH'
complete -c tvix-store -n '__tvix_store_at import' -l flat -d 'Address a file by its contents, without its NAR'
complete -c tvix-store -n '__tvix_store_at import' -l token-file -r -F -d 'A token, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at import' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at import' -l directory-sizes -x -a 'documented doubled' -d 'How the daemon counts the sizes of Directories: tvix\'s and snix\'s want `doubled`'
complete -c tvix-store -n '__tvix_store_at import' -l json -d 'Print a JSON array, at the end'
complete -c tvix-store -n '__tvix_store_at import' -s q -l quiet -d 'Show no progress'
complete -c tvix-store -n '__tvix_store_at import' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at import' -F

complete -c tvix-store -n '__tvix_store_at nar-hash' -l base16 -d 'Write it in hex'
complete -c tvix-store -n '__tvix_store_at nar-hash' -l base32 -d 'Write it in Nix\'s base 32'
complete -c tvix-store -n '__tvix_store_at nar-hash' -l base64 -d 'Write it in base 64'
complete -c tvix-store -n '__tvix_store_at nar-hash' -l sri -d 'Write it as sha256-…: the default'
complete -c tvix-store -n '__tvix_store_at nar-hash' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at nar-hash' -F

complete -c tvix-store -n '__tvix_store_at nar' -l from -r -F -d 'Where from: a daemon\'s URL or a compose file. Left out: the local daemon'
complete -c tvix-store -n '__tvix_store_at nar' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at nar' -l token-file -r -F -d 'A token, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at nar' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at nar' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at nar' -F

complete -c tvix-store -n '__tvix_store_at ls' -s l -l long -d 'Also show modes, sizes, and where links lead'
complete -c tvix-store -n '__tvix_store_at ls' -s R -l recursive -d 'Also list what is in folders'
complete -c tvix-store -n '__tvix_store_at ls' -l json -d 'Print a JSON document, as `nix store ls --json` does'
complete -c tvix-store -n '__tvix_store_at ls' -l from -r -F -d 'Where from: a daemon\'s URL or a compose file. Left out: the local daemon'
complete -c tvix-store -n '__tvix_store_at ls' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at ls' -l token-file -r -F -d 'A token, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at ls' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at ls' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at ls' -F

complete -c tvix-store -n '__tvix_store_at cat' -l offset -x -d 'Leave out so much at its beginning'
complete -c tvix-store -n '__tvix_store_at cat' -l length -x -d 'Write so much, at most'
complete -c tvix-store -n '__tvix_store_at cat' -l from -r -F -d 'Where from: a daemon\'s URL or a compose file. Left out: the local daemon'
complete -c tvix-store -n '__tvix_store_at cat' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at cat' -l token-file -r -F -d 'A token, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at cat' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at cat' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at cat' -F

complete -c tvix-store -n '__tvix_store_at extract' -l link -d 'Have equal files share their contents'
complete -c tvix-store -n '__tvix_store_at extract' -l from -r -F -d 'Where from: a daemon\'s URL or a compose file. Left out: the local daemon'
complete -c tvix-store -n '__tvix_store_at extract' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at extract' -l token-file -r -F -d 'A token, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at extract' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at extract' -s q -l quiet -d 'Show no progress'
complete -c tvix-store -n '__tvix_store_at extract' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at extract' -F

complete -c tvix-store -n '__tvix_store_at add-nar' -l narinfo -r -F -d 'Its narinfo, which says its path, references, deriver and signatures'
complete -c tvix-store -n '__tvix_store_at add-nar' -l path -r -F -d 'The store path that it is the NAR of'
complete -c tvix-store -n '__tvix_store_at add-nar' -l name -x -d 'What to call it, if its store path is to follow from its content'
complete -c tvix-store -n '__tvix_store_at add-nar' -l references -r -F -d 'Store paths that it refers to; several, by spaces or again'
complete -c tvix-store -n '__tvix_store_at add-nar' -l deriver -r -F -d 'The derivation that made it'
complete -c tvix-store -n '__tvix_store_at add-nar' -l public-keys -x -d 'Keys, one of which has to have signed it; several, by spaces or again'
complete -c tvix-store -n '__tvix_store_at add-nar' -l to -r -F -d 'Where to: a daemon\'s URL or a compose file. Left out: the local daemon'
complete -c tvix-store -n '__tvix_store_at add-nar' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at add-nar' -l token-file -r -F -d 'A token, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at add-nar' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at add-nar' -l directory-sizes -x -a 'documented doubled' -d 'How the daemon counts the sizes of Directories: tvix\'s and snix\'s want `doubled`'
complete -c tvix-store -n '__tvix_store_at add-nar' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at add-nar' -F

complete -c tvix-store -n '__tvix_store_at pin' -l comment -x -d 'Why, for whoever reads `pins`'
complete -c tvix-store -n '__tvix_store_at pin' -l no-fetch -d 'Do not fetch what is not here yet'
complete -c tvix-store -n '__tvix_store_at pin' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at pin' -l token-file -r -F -d 'A token with the right `admin`, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at pin' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at pin' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at pin' -F

complete -c tvix-store -n '__tvix_store_at unpin' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at unpin' -l token-file -r -F -d 'A token with the right `admin`, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at unpin' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at unpin' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at unpin' -F

complete -c tvix-store -n '__tvix_store_at pins' -l json -d 'Print a JSON array'
complete -c tvix-store -n '__tvix_store_at pins' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at pins' -l token-file -r -F -d 'A token with the right `admin`, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at pins' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at pins' -s h -l help -d 'Show this message and exit'

complete -c tvix-store -n '__tvix_store_at verify' -l repair -d 'Drop what is damaged, and fetch paths that lost it again'
complete -c tvix-store -n '__tvix_store_at verify' -l json -d 'Print JSON, an object a line'
complete -c tvix-store -n '__tvix_store_at verify' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at verify' -l token-file -r -F -d 'A token with the right `admin`, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at verify' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at verify' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at verify' -F

complete -c tvix-store -n '__tvix_store_at forget-absences' -l compose -r -F -d 'The compose file; else $TVIXSTORE_COMPOSE, ./compose.toml, /etc/tvixstore/compose.toml, or cache.nixos.org alone'
complete -c tvix-store -n '__tvix_store_at forget-absences' -l token-file -r -F -d 'A token with the right `admin`, if the daemon wants one'
complete -c tvix-store -n '__tvix_store_at forget-absences' -l ca-file -r -F -d 'Authorities that are believed in addition to the system\'s'
complete -c tvix-store -n '__tvix_store_at forget-absences' -s h -l help -d 'Show this message and exit'

complete -c tvix-store -n '__tvix_store_at compose' -a check -d 'Check a compose file: all its mistakes, and what else is to be said of it'
complete -c tvix-store -n '__tvix_store_at compose' -a show -d 'Show the tree of services that a compose file stands for, without its secrets'
complete -c tvix-store -n '__tvix_store_at compose' -s h -l help -d 'Show this message and exit'

complete -c tvix-store -n '__tvix_store_at compose check' -l strict -d 'Fail on a warning, too'
complete -c tvix-store -n '__tvix_store_at compose check' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at compose check' -F

complete -c tvix-store -n '__tvix_store_at compose show' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at compose show' -F

complete -c tvix-store -n '__tvix_store_at key' -a generate -d 'Make a secret key, for sign_with or `nix copy`; a file that is there is never replaced'
complete -c tvix-store -n '__tvix_store_at key' -a public -d 'Print the public key of a secret one, as clients have it in trusted-public-keys'
complete -c tvix-store -n '__tvix_store_at key' -s h -l help -d 'Show this message and exit'

complete -c tvix-store -n '__tvix_store_at key generate' -l out -r -F -d 'Where the secret key goes, for its owner\'s eyes alone; the public key is then printed. Without it, the secret key is printed'
complete -c tvix-store -n '__tvix_store_at key generate' -s h -l help -d 'Show this message and exit'

complete -c tvix-store -n '__tvix_store_at key public' -s h -l help -d 'Show this message and exit'
complete -c tvix-store -n '__tvix_store_at key public' -F
