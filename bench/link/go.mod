module link

go 1.21
