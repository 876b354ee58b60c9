"""Which hosts run which collectors: the CMDB's answer as http_sd, file_sd and an inventory."""
