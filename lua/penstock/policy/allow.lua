-- Lets in the clients that are listed.
return require "penstock.address_list"("allow", "deny", "not_allowed")
