-- The protocols that begin in the clear, in the order of their names. `early`: those whose server penstock can play
-- before there is an upstream.
return {
  all = { "imap", "ldap", "mysql", "postgres", "smtp", "xmpp" },
  early = { "imap", "ldap", "postgres", "smtp", "xmpp" },
}
