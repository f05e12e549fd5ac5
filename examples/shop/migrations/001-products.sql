create table product (
  name text primary key,
  price_cents integer not null check (price_cents > 0)
);

insert into product values ('barrow', 8900), ('lantern', 1575), ('spade', 2450);
