create table ordered (
  id bigint generated always as identity primary key,
  product text not null references product,
  quantity integer not null check (quantity > 0),
  at timestamptz not null default now()
);

insert into ordered (product, quantity) values ('spade', 2), ('lantern', 1), ('spade', 1), ('barrow', 1);
