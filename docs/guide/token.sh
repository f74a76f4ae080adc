# Makes a token for POST /exec with your own SSH key. Needs ssh-keygen, base64 and tr.
#   . ./token.sh
#   token=$(ussycode_token ~/.ssh/id_ed25519 your.host '{"cmds":["ls","new"],"exp":2000000000}')
#   curl -H "Authorization: Bearer $token" -d ls https://your.host/exec
ussycode_token() {
  _sig=$(printf %s "$3" | ssh-keygen -q -Y sign -f "$1" -n "v0@$2" 2>/dev/null) || return 1
  _sig=${_sig#-----BEGIN SSH SIGNATURE-----}
  _sig=${_sig%-----END SSH SIGNATURE-----*}
  _payload=$(printf %s "$3" | base64 | tr -d '\n=' | tr '+/' '-_')
  printf 'usy0.%s.%s\n' "$_payload" "$(printf %s "$_sig" | tr -d '\n=' | tr '+/' '-_')"
}
